# The CUDA backend: MSTPP_CUDA=ON. The runtime is linked statically, so the program starts, and says
# what is missing, on a machine without a driver.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  # Machine code for Ampere, Ada and Hopper; PTX without the last's own instructions for what comes
  # after.
  set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90a-real 90-virtual)
endif()
find_program(MSTPP_NVCC nvcc HINTS /usr/local/cuda/bin)
if(MSTPP_NVCC AND NOT DEFINED CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  set(CMAKE_CUDA_COMPILER ${MSTPP_NVCC})
endif()
enable_language(CUDA)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know nvcc's C++20
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
set(CMAKE_CUDA_STANDARD 20)
if(CCACHE AND NOT DEFINED CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
find_package(CUDAToolkit REQUIRED)
