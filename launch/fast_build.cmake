# What makes a first build quick: headers cost more than code.

# ATen's headers cost seconds in every file: one precompiled header, made with the lowest library,
# holds those that nearly all include. `from` is the target that makes it, with the same flags.
function(emo_precompile_headers target from)
  if(target STREQUAL from)
    target_precompile_headers(${target} PRIVATE
      <ATen/core/Tensor.h> <ATen/ops/empty.h> <ATen/ops/from_blob.h> <absl/status/statusor.h>
      <absl/strings/str_cat.h> <algorithm> <cmath> <cstdint> <functional> <map> <memory> <optional>
      <string> <vector>)
  else()
    target_precompile_headers(${target} REUSE_FROM ${from})
  endif()
endfunction()

# The sources of a room (a folder) are compiled together: what they include is read once. Names in
# their anonymous namespaces must differ; clang-tidy (launch/tidy.sh) and the preset dev read each
# file alone, so that one that leans on its neighbour's includes is found. Not for loops whose speed
# hangs on what the compiler sees around them (model/host/, kernels, the optimizer).
function(emo_compile_rooms target)
  if(NOT EMO_ROOMS_TOGETHER)
    return()
  endif()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  # gcc takes every included file for a header.
  target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
  get_target_property(sources ${target} SOURCES)
  foreach(source ${sources})
    if(source MATCHES "/optimizer\\.cc$|/host/|/kernels/")
      continue()
    endif()
    get_filename_component(folder "${source}" DIRECTORY)
    file(RELATIVE_PATH room "${CMAKE_SOURCE_DIR}" "${folder}")
    string(REPLACE "/" "_" room "${room}")
    set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${room})
  endforeach()
endfunction()
