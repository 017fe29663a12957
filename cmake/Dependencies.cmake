# Debian and Ubuntu packages; `./dev` installs them. What libmstpp links is named three times, each
# time in another language: here, in mstppConfig.cmake.in (for programs that link the static
# library) and in MSTPP_PKG_CONFIG_MODULES (for mstpp.pc). The install test holds them together.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(TBB REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(TIFF REQUIRED)
find_package(HDF5 REQUIRED COMPONENTS C)
pkg_check_modules(HWY REQUIRED IMPORTED_TARGET libhwy)
pkg_check_modules(FMT REQUIRED IMPORTED_TARGET fmt)
pkg_check_modules(ZIP REQUIRED IMPORTED_TARGET libzip)
pkg_check_modules(LCMS REQUIRED IMPORTED_TARGET lcms2)
pkg_check_modules(TURBOJPEG REQUIRED IMPORTED_TARGET libturbojpeg)
pkg_check_modules(SPNG REQUIRED IMPORTED_TARGET spng)
pkg_check_modules(EXIF REQUIRED IMPORTED_TARGET libexif)

set(MSTPP_PKG_CONFIG_MODULES
  tbb libtiff-4 hdf5 libhwy fmt libzip lcms2 libturbojpeg spng libexif)
