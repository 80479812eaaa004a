// From what a user names to rows in order: a folder of emo prepare, token files, or a mix of them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/mix/mix.h"
#include "data/order/mix_order.h"
#include "data/order/order.h"
#include "data/order/reference_order.h"
#include "data/rows/token_chunks.h"
#include "data/shards/token_file.h"

namespace emo {

struct RowsOptions {
  // One of the two: a folder of emo prepare alone, or token files and patterns of such; or a mix.
  std::vector<std::string> paths;
  std::string mix;
  // Of token files:
  MixNames names;
  int64_t vocab_size = -1;  // V; -1: not said
  int64_t eos_id = -1;      // -1: not said
  IdType dtype = IdType::kByVocabulary;
  std::string index;  // folder of what is made of the data; "": none
  // Of rows:
  int64_t sequence_length = 1024;  // S
  DocumentPacking packing = DocumentPacking::kCut;
  Order order = Order::kOurs;
  uint64_t seed = 0;
  int64_t batch = 1;  // sequences of a step: the reference's epochs are whole ones
  OpenReadable open = open_readable;
};

struct Rows {
  std::unique_ptr<TokenChunks> chunks;
  std::shared_ptr<ReferenceOrder> reference;  // of Order::kReference
  std::shared_ptr<const MixOrder> mix;        // of a mix with weights
};

// Whether they are of a folder of emo prepare.
bool is_prepared(const RowsOptions& options);

// InvalidArgument where options do not say what token files need, or do not fit together.
absl::Status check_options(const RowsOptions& options);

// The token files, in order. InvalidArgument for a folder among several paths; else as read_mix()
// and files_of_pattern(). REQUIRES: !is_prepared(options).
absl::StatusOr<Mix> list_token_files(const RowsOptions& options);

// Fails as check_options(), list_token_files(), open_prepared_set(), open_file_set(), TokenChunks,
// ReferenceOrder and MixOrder.
absl::StatusOr<Rows> open_rows(const RowsOptions& options);

}  // namespace emo
