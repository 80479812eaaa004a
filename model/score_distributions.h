// Which distribution each part of the router sees under a contract (model/router.h): the softmax
// over a document's pool, or that over all experts.
#pragma once

#include "model/config.h"

namespace emo {

struct ScoreDistributions {
  bool before;          // scores are the softmax over the pool
  bool balance_full;    // the balance loss sees the softmax over all
  bool balance_zeroed;  // ... that, zeroed outside the pool
  bool z_full;          // the z loss sees all logits
  bool full;            // the softmax over all is needed at all
  explicit ScoreDistributions(const RoutingContract& contract)
      : before(contract.mask == MaskTime::kBeforeSoftmax),
        balance_full(!before || contract.balance_sees == ScoresSeen::kFull),
        balance_zeroed(!before && contract.balance_sees == ScoresSeen::kMasked),
        z_full(contract.z_sees == ScoresSeen::kFull),
        full(!before || balance_full || z_full) {}
};

}  // namespace emo
