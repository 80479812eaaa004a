// The way of a step's gradients to the ranks that own them, on the host or on a device: bucket by
// bucket, while the backward passes go on.
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "model/transformer.h"
#include "parallel/mesh.h"
#include "parallel/sharding.h"

namespace emo {

// Gradients while they are computed, on the host or on a device: buffers in a layout of their own,
// the model's or the same with folded buckets (GradientMemory::kParts).
struct GradientBuffers {
  const ParameterLayout& layout;
  const FlatBuffers& buffers;
};

// Where the gradients that this rank owns end up: in the places that they have in the model's
// layout, in `gradients` itself, whose other parts keep what this rank contributed; or, of buffers
// that `gradients` keeps folded, side by side.
FlatBuffers make_owned_gradients(const ParameterLayout& layout, const GradientBuffers& gradients);

// Of one buffer, for one step. All calls are collective over `group`. Order of calls: for each
// backward pass and bucket before(), zero() where it is to be added to, after(); in the end
// finish().
class BufferReduction {
 public:
  // `owned` as make_owned_gradients() made it. What is referred to must outlive this.
  BufferReduction(Communicator& group, const Sharding& layout, const Sharding& memory,
                  const at::Tensor& gradients, const at::Tensor& owned);

  // Before a backward pass writes to a bucket: makes its memory ready. Answers whether the bucket
  // is to be added to: else it may hold anything, but for padding between parameters, which is
  // zero.
  bool before(size_t bucket, bool first_pass);
  void zero(size_t bucket);
  // After it did: the sums may travel, folded ones in every pass, others in the last.
  void after(size_t bucket, bool last_pass);
  // `owned` is complete.
  void finish();

 private:
  void settle(size_t bucket);

  Communicator* group_;
  const Sharding& layout_;
  const Sharding& memory_;
  at::Tensor gradients_, owned_;
  bool folded_;
  std::map<size_t, std::unique_ptr<Pending>> travelling_;
};

// Of both buffers, for a step of `passes` backward passes, each from the head to the embedding. All
// calls but the constructor are collective; order as above.
class GradientReduction {
 public:
  GradientReduction(const Mesh& mesh, const ParameterLayout& layout,
                    const GradientBuffers& gradients, const FlatBuffers& owned, int64_t passes);
  // As PassOptions::before_gradients (model/pass.h).
  bool before(size_t bucket);
  void after(size_t bucket);
  void finish();

 private:
  BufferReduction dense_, experts_;
  size_t head_;
  int64_t pass_ = -1, passes_;
};

}  // namespace emo
