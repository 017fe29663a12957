# Debian and Ubuntu packages; `./dev` installs them.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(TBB REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(TIFF REQUIRED)
find_program(PROTOC protoc REQUIRED)

# NAME=MODULE gives the target PkgConfig::NAME. Programs that link the static library look for the
# same ones: mstppConfig.cmake.in reads this list, mstpp.pc the next.
set(MSTPP_PKG_CONFIG_TARGETS HDF5=hdf5 HWY=libhwy FMT=fmt ZIP=libzip LCMS=lcms2
    TURBOJPEG=libturbojpeg SPNG=spng EXIF=libexif PROTOBUF=protobuf-lite)
set(MSTPP_PKG_CONFIG_MODULES tbb libtiff-4)
foreach(entry IN LISTS MSTPP_PKG_CONFIG_TARGETS)
  string(REPLACE "=" ";" entry ${entry})
  list(GET entry 0 name)
  list(GET entry 1 module)
  pkg_check_modules(${name} REQUIRED IMPORTED_TARGET ${module})
  list(APPEND MSTPP_PKG_CONFIG_MODULES ${module})
endforeach()
