// The index arithmetic of an expert exchange (model/device/exchange.h).
//
// A *part* is the experts of one rank, [begin, end); this rank's part stands first, then the other
// ranks' in order. bounds i32 [P, 2] of the parts.
#pragma once

#include <ATen/core/Tensor.h>

namespace emo::device {

// pairs i32 [P, T]: how many of a token's experts i32 [T, K] are in each part.
void count_pairs(const at::Tensor& experts, const at::Tensor& bounds, const at::Tensor& pairs);

// From pairs and the running sum i64 [P, T] of (pairs > 0) over parts, then tokens: the number of
// the row that travels, row_of i32 [P, T] (-1: none); and of each row its token and its part, i32
// [P * T], as many as there are rows.
void number_rows(const at::Tensor& pairs, const at::Tensor& running, const at::Tensor& row_of,
                 const at::Tensor& token_of_row, const at::Tensor& part_of_row);

// records f32 [rows, 2 K]: for each row its token's K slots as the receiver needs them: the expert,
// counted from the part's first (-1: elsewhere), and its weight.
void pack_records(const at::Tensor& experts, const at::Tensor& weights, const at::Tensor& bounds,
                  const at::Tensor& token_of_row, const at::Tensor& part_of_row,
                  const at::Tensor& records);

// The way back: keys i32 [R, K], the expert or `none`; weights f32 [R, K].
void unpack_records(const at::Tensor& records, int64_t none, const at::Tensor& keys,
                    const at::Tensor& weights);

// positions i32 [T, K] of experts in the order in which ranks hold them, by position_of i32 [E]; -1
// stays.
void find_positions(const at::Tensor& experts, const at::Tensor& position_of,
                    const at::Tensor& positions);

// Keys of tokens that stay here: the expert, or `none` for -1.
void local_keys(const at::Tensor& experts, int64_t none, const at::Tensor& keys);

// sorted i32 [slots] keys in ascending order. begin i32 [E + 1]: where each expert's begin; padded
// i32 [E + 1]: the same with every expert's count rounded up to `multiple`.
void expert_ranges(const at::Tensor& sorted, int64_t multiple, const at::Tensor& begin,
                   const at::Tensor& padded);

// order i64 [slots]: where each sorted key stood. slot_of_pair i32 [padded pairs], -1 at padding;
// pair_of_slot i32 [slots], -1 where a slot is unused.
void place_pairs(const at::Tensor& sorted, const at::Tensor& order, const at::Tensor& begin,
                 const at::Tensor& padded, const at::Tensor& slot_of_pair,
                 const at::Tensor& pair_of_slot);

// slots f32 [T, K]: from returned f32 [rows, K], what the row that took the slot's expert says; 0
// for unused slots.
void take_slots(const at::Tensor& experts, const at::Tensor& bounds, const at::Tensor& row_of,
                const at::Tensor& returned, const at::Tensor& slots);

}  // namespace emo::device
