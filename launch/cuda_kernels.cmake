# Compiles the device path's kernels with nvcc from the Python environment: no CUDA toolkit on the
# machine, no GPU, and CMake's own CUDA language, which asks for both, is not used.
# GPUs: sm_90 (H100, H200) as machine code, newer ones through the PTX beside it.
set(EMO_CUDA_ARCHITECTURE 90 CACHE STRING "Compute capability that kernels are compiled for")

# Sets `result` to the object files of the given sources.
function(emo_cuda_objects result)
  file(GLOB nvcc "${EMO_PYTHON_FOLDER}/lib/python3*/site-packages/nvidia/cu13/bin/nvcc")
  if(NOT nvcc)
    message(FATAL_ERROR "no nvcc in ${EMO_PYTHON_FOLDER}: run launch/setup.sh first (launch/setup_full.sh for the cuda preset)")
  endif()
  set(flags -std=c++20 -O3 -ccbin ${CMAKE_CXX_COMPILER} --extended-lambda --expt-relaxed-constexpr
      -gencode arch=compute_${EMO_CUDA_ARCHITECTURE},code=[sm_${EMO_CUDA_ARCHITECTURE},compute_${EMO_CUDA_ARCHITECTURE}]
      --Werror all-warnings -Xcompiler -Wall,-Wextra,-fPIC
      -I ${CMAKE_SOURCE_DIR} -isystem ${torch_folder}/include -isystem ${nvidia_folder}/cu13/include)
  foreach(source ${ARGN})
    get_filename_component(name ${source} NAME_WE)
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.cuda.o)
    add_custom_command(OUTPUT ${object}
      COMMAND ${nvcc} -x cu ${flags} -MD -MF ${object}.d -c ${source} -o ${object}
      DEPENDS ${source} DEPFILE ${object}.d VERBATIM
      COMMENT "Compiling ${name} for CUDA")
    list(APPEND objects ${object})
  endforeach()
  set(${result} ${objects} PARENT_SCOPE)
endfunction()
