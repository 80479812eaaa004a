#include "data/rows/synthetic.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "data/order/random_bits.h"

namespace emo {

SyntheticChunks::SyntheticChunks(const SyntheticOptions& options, int64_t sequence_length)
    : options_(options), sequence_length_(sequence_length) {
  for (int64_t t = 0; t < options_.topics; ++t) topics_.push_back(absl::StrCat("topic-", t));
}

absl::Status SyntheticChunks::read(int64_t chunk, int32_t* tokens,
                                   std::vector<int32_t>* document_ends,
                                   std::vector<SpanSource>* sources) const {
  const auto words = static_cast<uint64_t>(options_.vocab_size - 1);  // ids 1 .. V - 1
  const auto own = std::max<uint64_t>(1, words / static_cast<uint64_t>(options_.topics + 1));
  uint64_t draw = 0;
  const auto next = [&](uint64_t bound) {
    return random_below(random_bits(options_.seed, static_cast<uint64_t>(chunk), draw++), bound);
  };
  for (int64_t begin = 0; begin < sequence_length_;) {
    const auto topic = next(static_cast<uint64_t>(options_.topics));
    const auto spread = static_cast<uint64_t>(options_.max_length - options_.min_length + 1);
    const int64_t length = options_.min_length + static_cast<int64_t>(next(spread));
    const int64_t end = std::min(begin + length, sequence_length_);
    uint64_t word = next(own);
    for (int64_t t = begin; t < end; ++t) {
      // Mostly a fixed successor within the topic's words, sometimes another, sometimes a common
      // one.
      const uint64_t kind = next(8);
      if (kind < 5) word = mix_bits(topic << 32 | word) % own;
      if (kind == 5) word = next(own);
      const uint64_t first = kind < 6 ? (topic + 1) * own : 0;
      tokens[t] = static_cast<int32_t>(1 + (first + (kind < 6 ? word : next(own))) % words);
    }
    if (begin + length <= sequence_length_) tokens[end - 1] = eos_id();
    document_ends->push_back(static_cast<int32_t>(end));
    sources->push_back({static_cast<int32_t>(topic), -1, -1});
    begin = end;
  }
  return absl::OkStatus();
}

std::string SyntheticChunks::fingerprint() const {
  return absl::StrCat("synthetic ", options_.vocab_size, " ", options_.topics, " ",
                      options_.min_length, " ", options_.max_length, " ", options_.seed);
}

}  // namespace emo
