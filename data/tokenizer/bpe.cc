#include "data/tokenizer/bpe.h"

#include <limits>
#include <queue>

namespace emo {
namespace {

constexpr size_t kShort = 48;  // words up to here are merged by scanning, which beats a heap

}  // namespace

bool Bpe::add_merge(int32_t left, int32_t right, int32_t merged) {
  const auto rank = static_cast<int32_t>(merges_.size());
  return merges_.emplace(key(left, right), Merge{rank, merged}).second;
}

const Bpe::Merge* Bpe::find(int32_t left, int32_t right) const {
  const auto found = merges_.find(key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

void Bpe::encode(absl::string_view word, std::vector<int32_t>* tokens) const {
  word.size() <= kShort ? encode_short(word, tokens) : encode_long(word, tokens);
}

void Bpe::encode_short(absl::string_view word, std::vector<int32_t>* tokens) const {
  constexpr int32_t kNone = std::numeric_limits<int32_t>::max();
  int32_t ids[kShort];
  int32_t ranks[kShort];  // of the pair (i, i + 1)
  size_t n = word.size();
  for (size_t i = 0; i < n; ++i) ids[i] = byte_ids_[static_cast<uint8_t>(word[i])];
  const auto rank_at = [&](size_t i) {
    const Merge* merge = i + 1 < n ? find(ids[i], ids[i + 1]) : nullptr;
    return merge == nullptr ? kNone : merge->rank;
  };
  for (size_t i = 0; i < n; ++i) ranks[i] = rank_at(i);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == kNone) break;
    ids[best] = find(ids[best], ids[best + 1])->merged;
    for (size_t i = best + 1; i + 1 < n; ++i) {
      ids[i] = ids[i + 1];
      ranks[i] = ranks[i + 1];
    }
    --n;
    if (best > 0) ranks[best - 1] = rank_at(best - 1);
    ranks[best] = rank_at(best);
  }
  tokens->insert(tokens->end(), ids, ids + n);
}

void Bpe::encode_long(absl::string_view word, std::vector<int32_t>* tokens) const {
  // A doubly linked list of tokens over the word's bytes, and a heap of candidate merges; an entry
  // whose tokens have changed since it was pushed is stale and skipped.
  struct Node {
    int32_t id;
    int64_t previous, next;
  };
  struct Candidate {
    int32_t rank;
    int64_t at;
    int32_t left, right, merged;
    bool operator<(const Candidate& other) const {  // std::priority_queue takes the greatest
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  const auto n = static_cast<int64_t>(word.size());
  std::vector<Node> nodes(word.size());
  std::priority_queue<Candidate> candidates;
  for (int64_t i = 0; i < n; ++i) {
    nodes[i] = {byte_ids_[static_cast<uint8_t>(word[i])], i - 1, i + 1 < n ? i + 1 : -1};
  }
  const auto push = [&](int64_t at) {
    if (at < 0 || nodes[at].next < 0) return;
    const int32_t left = nodes[at].id;
    const int32_t right = nodes[nodes[at].next].id;
    const Merge* merge = find(left, right);
    if (merge != nullptr) candidates.push({merge->rank, at, left, right, merge->merged});
  };
  for (int64_t i = 0; i < n; ++i) push(i);
  while (!candidates.empty()) {
    const Candidate best = candidates.top();
    candidates.pop();
    Node& node = nodes[best.at];
    if (node.id != best.left || node.next < 0 || nodes[node.next].id != best.right) continue;
    const int64_t absorbed = node.next;
    node.id = best.merged;
    node.next = nodes[absorbed].next;
    nodes[absorbed].id = -1;
    if (node.next >= 0) nodes[node.next].previous = best.at;
    push(node.previous);
    push(best.at);
  }
  for (int64_t i = 0; i >= 0; i = nodes[i].next) tokens->push_back(nodes[i].id);
}

}  // namespace emo
