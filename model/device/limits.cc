#include "model/device/limits.h"

#include <string>
#include <utility>

#include "model/device/matrix.h"

namespace emo::device {

std::vector<Limit> limits_of(const ModelConfig& config, at::ScalarType type, bool gpu) {
  const int64_t multiple = width_multiple(type);
  const bool flash = gpu && type == at::kBFloat16;  // attention is libtorch's
  std::vector<Limit> limits;
  const std::pair<const char*, int64_t> widths[] = {
      {"d_model", config.d_model}, {"d_expert", config.d_expert}, {"d_ffn", config.d_ffn}};
  for (const auto& [name, width] : widths) {
    if (width % multiple == 0) continue;
    limits.push_back(
        {name, (type == at::kBFloat16 ? "on a device in bf16" : "on a device") +
                   std::string(" widths must be multiples of ") + std::to_string(multiple) +
                   ", d_model is " + std::to_string(config.d_model) + ", d_expert " +
                   std::to_string(config.d_expert) + ", d_ffn " + std::to_string(config.d_ffn)});
  }
  if (flash && config.n_heads > 0 && (config.head_dim() % 8 != 0 || config.head_dim() > 256)) {
    limits.push_back({"n_heads",
                      "flash attention wants d_model / n_heads to be a multiple of 8 of at most "
                      "256, it is " +
                          std::to_string(config.head_dim())});
  }
  return limits;
}

}  // namespace emo::device
