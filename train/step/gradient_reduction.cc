#include "train/step/gradient_reduction.h"

#include <ATen/ops/zeros.h>

#include "parallel/buffers.h"
#include "parallel/parallel_for.h"

namespace emo {
namespace {

bool is_folded(const Sharding& layout, const Sharding& memory) {
  return layout.buckets != memory.buckets;
}

at::Tensor make_owned(const Sharding& layout, const Sharding& memory, const at::Tensor& gradients) {
  if (!is_folded(layout, memory)) return gradients;
  return at::zeros({layout.owned_size()}, gradients.options());
}

void clear(const at::Tensor& tensor) {
  if (tensor.is_cpu()) {
    zero_buffer(tensor);
  } else {
    tensor.zero_();
  }
}

void add(const at::Tensor& from, const at::Tensor& to) {
  if (!to.is_cpu()) {
    to.add_(from);
    return;
  }
  const auto* source = from.const_data_ptr<float>();
  auto* sum = to.mutable_data_ptr<float>();
  parallel_for(to.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) sum[i] += source[i];
  });
}

}  // namespace

FlatBuffers make_owned_gradients(const ParameterLayout& layout, const GradientBuffers& gradients) {
  return {make_owned(layout.dense, gradients.layout.dense, gradients.buffers.dense),
          make_owned(layout.experts, gradients.layout.experts, gradients.buffers.experts)};
}

BufferReduction::BufferReduction(Communicator& group, const Sharding& layout,
                                 const Sharding& memory, const at::Tensor& gradients,
                                 const at::Tensor& owned)
    : group_(&group),
      layout_(layout),
      memory_(memory),
      gradients_(gradients),
      owned_(owned),
      folded_(is_folded(layout, memory)) {
  if (folded_) clear(owned_);
}

bool BufferReduction::before(size_t bucket, bool first_pass) {
  const Bucket& place = memory_.buckets[bucket];
  for (auto it = travelling_.begin(); it != travelling_.end();) {
    const size_t other = (it++)->first;
    if (overlap(place, memory_.buckets[other])) settle(other);
  }
  if (folded_) zero(bucket);  // it shares memory with buckets whose padding is elsewhere
  return folded_ || !first_pass;
}

void BufferReduction::zero(size_t bucket) {
  const Bucket& place = memory_.buckets[bucket];
  clear(gradients_.slice(0, place.begin, place.begin + place.size));
}

void BufferReduction::after(size_t bucket, bool last_pass) {
  if (!folded_ && !last_pass) return;
  // Two on their way at a time: each needs memory as large as itself until it is added up.
  settle(bucket + 2);
  travelling_[bucket] = reduce_scatter_bucket(*group_, memory_, bucket, gradients_);
}

void BufferReduction::finish() {
  while (!travelling_.empty()) settle(travelling_.rbegin()->first);
}

void BufferReduction::settle(size_t bucket) {
  const auto found = travelling_.find(bucket);
  if (found == travelling_.end()) return;
  found->second->wait();
  travelling_.erase(found);
  if (!folded_) return;
  const auto part = [&](const at::Tensor& buffer, int64_t begin) {
    return buffer.slice(0, begin, begin + memory_.part_size(bucket));
  };
  add(part(gradients_, memory_.part_begin(bucket)), part(owned_, layout_.owned_begin(bucket)));
}

GradientReduction::GradientReduction(const Mesh& mesh, const ParameterLayout& layout,
                                     const GradientBuffers& gradients, const FlatBuffers& owned,
                                     int64_t passes)
    : dense_(*mesh.world, layout.dense, gradients.layout.dense, gradients.buffers.dense,
             owned.dense),
      experts_(*mesh.dp, layout.experts, gradients.layout.experts, gradients.buffers.experts,
               owned.experts),
      head_(layout.head_bucket()),
      passes_(passes) {}

bool GradientReduction::before(size_t bucket) {
  if (bucket == head_) ++pass_;
  if (!dense_.before(bucket, pass_ == 0)) dense_.zero(bucket);  // its writers always add
  return experts_.before(bucket, pass_ == 0);
}

void GradientReduction::after(size_t bucket) {
  dense_.after(bucket, pass_ + 1 == passes_);
  experts_.after(bucket, pass_ + 1 == passes_);
}

void GradientReduction::finish() {
  dense_.finish();
  experts_.finish();
}

}  // namespace emo
