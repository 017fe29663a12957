# Installs into a folder, moves it, and uses the library as a stranger would: through
# find_package and through pkg-config. Run by ctest with BUILD, SOURCE, LIBDIR, CXX and FLAGS.
set(work ${BUILD}/tests/install/work)
file(REMOVE_RECURSE ${work})
file(MAKE_DIRECTORY ${work})

function(run)
  execute_process(COMMAND ${ARGN} COMMAND_ECHO STDOUT COMMAND_ERROR_IS_FATAL ANY)
endfunction()

# What is installed must work wherever it is moved to.
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${work}/first)
file(RENAME ${work}/first ${work}/prefix)
set(prefix ${work}/prefix)
set(ENV{LD_LIBRARY_PATH} ${prefix}/${LIBDIR})

execute_process(COMMAND ${prefix}/bin/mstpp info --json OUTPUT_VARIABLE info
                COMMAND_ERROR_IS_FATAL ANY)
string(JSON weights GET "${info}" file)
if(NOT weights STREQUAL "${prefix}/share/mstpp/weights/mst_plus_plus_cave.safetensors")
  message(FATAL_ERROR "the installed command uses ${weights}")
endif()

run(${CMAKE_COMMAND} -S ${SOURCE}/consumer -B ${work}/cmake -G Ninja
    -D CMAKE_CXX_COMPILER=${CXX} -D CMAKE_CXX_FLAGS=${FLAGS} -D CMAKE_PREFIX_PATH=${prefix})
run(${CMAKE_COMMAND} --build ${work}/cmake)
run(${work}/cmake/consumer)

set(ENV{PKG_CONFIG_PATH} ${prefix}/${LIBDIR}/pkgconfig)
execute_process(COMMAND pkg-config --cflags --libs mstpp OUTPUT_VARIABLE flags
                OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
separate_arguments(flags UNIX_COMMAND "${FLAGS} ${flags}")
run(${CXX} -std=c++20 ${SOURCE}/consumer/main.cc -o ${work}/consumer ${flags})
run(${work}/consumer)
