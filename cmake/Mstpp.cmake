# mstpp_component(NAME LIBRARIES ...): the .cc files of one folder of src/ as an object library
# mstpp_NAME. The installed library mstpp is all of them together; tests link the few they need.
set_property(GLOBAL PROPERTY MSTPP_COMPONENTS "")

function(mstpp_compile_options target)
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>)
  # GCC 12 takes "text" + std::string for overlapping copies (bug 105651): no -Wrestrict.
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wno-missing-field-initializers>
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>
    $<$<AND:$<BOOL:${MSTPP_WERROR}>,$<COMPILE_LANGUAGE:CXX>>:-Werror>)
endfunction()

function(mstpp_component name)
  cmake_parse_arguments(ARG "" "" "LIBRARIES" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS *.cc)
  if(NOT sources)
    return()
  endif()
  add_library(mstpp_${name} OBJECT ${sources})
  mstpp_compile_options(mstpp_${name})
  target_link_libraries(mstpp_${name} PUBLIC ${ARG_LIBRARIES})
  set_property(GLOBAL APPEND PROPERTY MSTPP_COMPONENTS ${name})
endfunction()

# mstpp_test(NAME COMPONENTS ... [SOURCES ...] [LIBRARIES ...]): tests/NAME.cc by default. Tests run in
# the root of the source and find their data from there, so that they can be carried to another
# machine with it.
function(mstpp_test name)
  cmake_parse_arguments(ARG "" "" "COMPONENTS;SOURCES;LIBRARIES" ${ARGN})
  if(NOT ARG_SOURCES)
    set(ARG_SOURCES ${name}.cc)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  mstpp_compile_options(${name})
  foreach(component IN LISTS ARG_COMPONENTS)
    target_link_libraries(${name} PRIVATE mstpp_${component})
  endforeach()
  target_link_libraries(${name} PRIVATE ${ARG_LIBRARIES} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE
    MSTPP_TEST_DATA="tests/data" MSTPP_SOURCE_DIR=".")
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
    PROPERTIES LABELS ${name} TIMEOUT 600)
endfunction()

# mstpp_fuzzer(NAME COMPONENTS ... [LIBRARIES ...]): tests/fuzz/NAME.cc, run by `./dev fuzz NAME`.
function(mstpp_fuzzer name)
  cmake_parse_arguments(ARG "" "" "COMPONENTS;LIBRARIES" ${ARGN})
  add_executable(${name} ${name}.cc)
  mstpp_compile_options(${name})
  list(TRANSFORM ARG_COMPONENTS PREPEND mstpp_)
  target_link_libraries(${name} PRIVATE ${ARG_COMPONENTS} ${ARG_LIBRARIES})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endfunction()
