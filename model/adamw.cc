#include "model/adamw.h"

#include <cmath>

namespace emo {

AdamWFactors adamw_factors(const AdamWOptions& options, double learning_rate, int64_t step,
                           bool decayed) {
  const auto t = static_cast<double>(step);
  return {static_cast<float>(options.beta1),
          static_cast<float>(options.beta2),
          static_cast<float>(options.epsilon),
          static_cast<float>(decayed ? 1 - learning_rate * options.weight_decay : 1.0),
          static_cast<float>(learning_rate / (1 - std::pow(options.beta1, t))),
          static_cast<float>(1 / std::sqrt(1 - std::pow(options.beta2, t)))};
}

}  // namespace emo
