# Two components: `runtime` is the command and its weights, `development` the library, its headers
# and what CMake and pkg-config need to find it.
include(CMakePackageConfigHelpers)

set(MSTPP_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/mstpp)
set(MSTPP_PC_DIR ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(TARGETS mstpp EXPORT mstppTargets
  RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT runtime
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT development
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
install(DIRECTORY include/mstpp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)
install(EXPORT mstppTargets NAMESPACE mstpp:: DESTINATION ${MSTPP_CMAKE_DIR}
  COMPONENT development)
install(DIRECTORY weights/ DESTINATION ${CMAKE_INSTALL_DATADIR}/mstpp/weights COMPONENT runtime
  FILES_MATCHING PATTERN "*.safetensors" PATTERN "README.md")

set(MSTPP_IS_SHARED FALSE)
if(BUILD_SHARED_LIBS)
  set(MSTPP_IS_SHARED TRUE)
endif()
configure_package_config_file(cmake/mstppConfig.cmake.in mstppConfig.cmake
  INSTALL_DESTINATION ${MSTPP_CMAKE_DIR})
write_basic_package_version_file(mstppConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/mstppConfig.cmake ${PROJECT_BINARY_DIR}/mstppConfigVersion.cmake
  DESTINATION ${MSTPP_CMAKE_DIR} COMPONENT development)

# A static libmstpp's users must link its libraries too, with or without --static: Requires.
# The shared one has them in its own list: Requires.private.
file(RELATIVE_PATH MSTPP_PC_PREFIX /prefix/${MSTPP_PC_DIR} /prefix)
list(JOIN MSTPP_PKG_CONFIG_MODULES " " MSTPP_PC_REQUIRES)
if(BUILD_SHARED_LIBS)
  set(MSTPP_PC_REQUIRES "Requires.private: ${MSTPP_PC_REQUIRES}")
else()
  set(MSTPP_PC_REQUIRES "Requires: ${MSTPP_PC_REQUIRES}")
endif()
configure_file(cmake/mstpp.pc.in mstpp.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/mstpp.pc DESTINATION ${MSTPP_PC_DIR} COMPONENT development)
