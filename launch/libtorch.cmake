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

if(EMO_WITH_CUDA)
  file(GLOB nvidia_folder "${EMO_PYTHON_FOLDER}/lib/python3*/site-packages/nvidia")
  add_library(nccl INTERFACE)
  target_include_directories(nccl SYSTEM INTERFACE "${nvidia_folder}/nccl/include" "${nvidia_folder}/cu13/include")
  target_link_options(nccl INTERFACE "-Wl,-rpath,${nvidia_folder}/nccl/lib" "-Wl,-rpath,${nvidia_folder}/cu13/lib")
  target_link_libraries(nccl INTERFACE "${nvidia_folder}/nccl/lib/libnccl.so.2" "${nvidia_folder}/cu13/lib/libcudart.so.13")
  target_link_libraries(libtorch INTERFACE torch_cuda c10_cuda nccl)
endif()

# ATen's headers cost seconds in every file: a precompiled header holds those that nearly all include.
function(emo_precompile_headers target)
  target_precompile_headers(${target} PRIVATE
    <ATen/core/Tensor.h> <ATen/ops/empty.h> <ATen/ops/from_blob.h> <algorithm> <cmath> <cstdint>
    <map> <memory> <string> <vector>)
endfunction()
