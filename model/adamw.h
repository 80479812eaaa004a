// The factors of an AdamW update, the same for all elements and on every back end:
//   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,
//   w = w (1 - lr decay) - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)
// (Loshchilov and Hutter, arXiv 1711.05101, in the order of operations of torch.optim.AdamW).
#pragma once

#include <cstdint>

namespace emo {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;  // of all parameters but the embedding, as the reference
};

struct AdamWFactors {
  float beta1, beta2, epsilon;
  float keep;             // 1 - learning rate * weight decay; 1 without decay
  float step_size;        // learning rate / (1 - beta1^t)
  float root_correction;  // 1 / sqrt(1 - beta2^t)
};

// Of update number `step`, from 1 on.
AdamWFactors adamw_factors(const AdamWOptions& options, double learning_rate, int64_t step,
                           bool decayed);

}  // namespace emo
