# Defines the target `libtorch`: the C++ libraries inside the pinned torch wheel, without torch's own
# TorchConfig.cmake, which demands a CUDA toolkit even for a build that never touches a GPU.
file(GLOB torch_folder "${EMO_PYTHON_FOLDER}/lib/python3*/site-packages/torch")
if(NOT EXISTS "${torch_folder}/include/ATen/core/Tensor.h")
  message(FATAL_ERROR "no libtorch in ${EMO_PYTHON_FOLDER}: run launch/setup.sh first")
endif()
add_library(libtorch INTERFACE)
target_include_directories(libtorch SYSTEM INTERFACE "${torch_folder}/include")
target_link_directories(libtorch INTERFACE "${torch_folder}/lib")
target_link_options(libtorch INTERFACE "-Wl,-rpath,${torch_folder}/lib" "-Wl,--allow-shlib-undefined")
target_link_libraries(libtorch INTERFACE torch_cpu c10)
# Loops are vectorised by `#pragma omp simd`; threads are the program's own (parallel/thread_pool.h).
target_compile_options(libtorch INTERFACE -fopenmp-simd)

# What NCCL's communicator is compiled with, on machines without a GPU too. crt/ is a package of its own.
file(GLOB nvidia_folder "${EMO_PYTHON_FOLDER}/lib/python3*/site-packages/nvidia")
foreach(header nccl/include/nccl.h cu13/include/cuda_runtime_api.h cu13/include/crt/host_defines.h)
  if(NOT EXISTS "${nvidia_folder}/${header}")
    message(FATAL_ERROR "no nvidia/${header} in ${EMO_PYTHON_FOLDER}: run launch/setup.sh first (launch/setup_full.sh for the cuda preset)")
  endif()
endforeach()
add_library(nccl_headers INTERFACE)
target_include_directories(nccl_headers SYSTEM INTERFACE "${nvidia_folder}/nccl/include" "${nvidia_folder}/cu13/include")

add_library(nccl INTERFACE)
target_link_options(nccl INTERFACE "-Wl,-rpath,${nvidia_folder}/nccl/lib" "-Wl,-rpath,${nvidia_folder}/cu13/lib")
target_link_libraries(nccl INTERFACE nccl_headers "${nvidia_folder}/nccl/lib/libnccl.so.2" "${nvidia_folder}/cu13/lib/libcudart.so.13")
if(EMO_WITH_CUDA)
  # Nothing refers to torch_cuda by name: its kernels register themselves when it is loaded, and without
  # these flags the linker leaves it out.
  target_link_libraries(libtorch INTERFACE -Wl,--push-state,--no-as-needed torch_cuda -Wl,--pop-state c10_cuda nccl)
endif()
