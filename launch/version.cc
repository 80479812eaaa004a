#include "launch/version.h"

#include "absl/strings/str_cat.h"
#include "model/host/bf16_product.h"
#include "model/host/fp32_product.h"
#include "model/host/instruction_set.h"

namespace emo {

std::string version_text() {
  return absl::StrCat("emo ", EMO_VERSION,
                      "\ninstructions: ", instruction_set_name(instruction_set()),
                      "\nfp32 products: ", fp32_library_name(fp32_library()),
                      "\nbf16 products: ", bf16_kernel().name);
}

}  // namespace emo
