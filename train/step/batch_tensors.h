// From the loader's batches to the model's.
#pragma once

#include "data/rows/batch.h"
#include "model/micro_batch.h"

namespace emo {

// Local. REQUIRES: a batch as load() (data/rows/loader.h) makes it: its ends ascend, and every
// row's end is among the routing ends. Copies; document ids (sequence, ordinal of the routing span
// in its row) are worked out here.
Slice to_tensors(const Batch& batch);

// What this batch adds to the step's divisor N: its labels, plus the tokens of filtered rows.
int64_t divisor_share(const Batch& batch);

}  // namespace emo
