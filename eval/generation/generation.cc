#include "eval/generation/generation.h"

#include <ATen/ops/full.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "data/files/json.h"
#include "data/order/random_bits.h"
#include "data/tokenizer/utf8.h"
#include "eval/loss/sequence_batch.h"
#include "parallel/agreement.h"

namespace emo {
namespace {

// A prompt that is being answered, in a slot of the cache.
struct Active {
  int64_t prompt = -1;                      // its number; -1: the slot is free
  std::vector<int32_t> next;                // tokens that the next pass sees
  int64_t seen = 0;                         // tokens before those
  std::string text;                         // answered so far
  size_t streamed = 0;                      // bytes of it
  std::vector<std::vector<uint8_t>> pools;  // [L][E], once chosen
};

// The end of the text that is certain: not inside a character, nor what may be a stop string's
// beginning.
size_t certain_end(const std::string& text, const std::vector<std::string>& stops) {
  size_t end = std::min(text.size(), first_invalid_utf8(text));
  for (const std::string& stop : stops) {
    for (size_t n = std::min(stop.size(), end); n > 0; --n) {
      if (absl::EndsWith(absl::string_view(text).substr(0, end), stop.substr(0, n))) {
        end -= n;
        break;
      }
    }
  }
  return end;
}

class Generator {
 public:
  Generator(Inference* inference, const Tokenizer& tokenizer,
            const std::vector<std::vector<int32_t>>& prompts, const GenerationOptions& options)
      : inference_(*inference),
        config_(inference->config()),
        mesh_(inference->mesh()),
        tokenizer_(tokenizer),
        prompts_(prompts),
        options_(options),
        slots_(std::min(options.sequences, own_prompts())),
        cache_(inference->make_cache(static_cast<int64_t>(slots_.size()), capacity())),
        results_(prompts.size()) {
    pass_.settings = options.pass;
    pass_.settings.seed = options.sampling.seed;
    pass_.cache = &cache_;
  }

  std::vector<Generated> run() {
    while (anyone(fill_slots())) {
      const std::vector<int32_t> drawn = step();
      size_t i = 0;
      for (const int64_t slot : cache_.slots) take(slot, drawn[i++]);
    }
    return gather();
  }

 private:
  bool pools() const {
    return options_.pass.pool_of(inference_.contract()).kind != PoolPolicy::Kind::kNone;
  }

  // This rank's prompts are rank, rank + ranks, ...
  int64_t ranks() const { return mesh_.world->size(); }
  int64_t own_prompts() const {
    return (static_cast<int64_t>(prompts_.size()) + ranks() - 1 - mesh_.world->rank()) / ranks();
  }

  // Collective over ep: whether one of its ranks has something to do.
  bool anyone(bool self) const {
    if (mesh_.ep->size() == 1) return self;
    const at::Tensor active = at::full({1}, self ? 1 : 0, at::kInt);
    mesh_.ep->all_reduce(active, ReduceOp::kMax);
    return active.item<int32_t>() != 0;
  }

  // Collective: the answers of all ranks.
  std::vector<Generated> gather() {
    OrderedJson mine = OrderedJson::array();
    for (size_t i = mesh_.world->rank(); i < results_.size(); i += ranks()) {
      mine.push_back({results_[i].text, results_[i].tokens, results_[i].end});
    }
    // A binary format: a text may end inside a character.
    const std::vector<uint8_t> packed = OrderedJson::to_msgpack(mine);
    const std::vector<std::string> all =
        gather_texts(*mesh_.world, std::string(packed.begin(), packed.end()));
    for (size_t rank = 0; rank < all.size(); ++rank) {
      size_t i = rank;
      for (const OrderedJson& answer : OrderedJson::from_msgpack(all[rank])) {
        results_[i] = {answer[0], answer[1], answer[2]};
        i += all.size();
      }
    }
    return std::move(results_);
  }

  // Tokens of the longest sequence there can be.
  int64_t capacity() const {
    size_t longest = 1;
    for (const std::vector<int32_t>& prompt : prompts_) longest = std::max(longest, prompt.size());
    TORCH_CHECK(static_cast<int64_t>(longest) < options_.max_positions, "a prompt of ", longest,
                " tokens, of ", options_.max_positions, " positions");
    return std::min(options_.max_positions,
                    static_cast<int64_t>(longest) + options_.max_new_tokens);
  }

  // Free slots take the next prompts. False where nothing is left to do.
  bool fill_slots() {
    cache_.slots.clear();
    for (size_t slot = 0; slot < slots_.size(); ++slot) {
      Active& active = slots_[slot];
      if (active.prompt < 0 && next_ < static_cast<int64_t>(prompts_.size())) {
        active = Active();
        active.prompt = next_;
        active.next = prompts_[next_];
        next_ += ranks();
        active.pools.resize(pools() ? config_.n_layers : 0);
        cache_.lengths[slot] = 0;
      }
      if (active.prompt >= 0) cache_.slots.push_back(static_cast<int64_t>(slot));
    }
    return !cache_.slots.empty();
  }

  // Pools that were chosen go into the pass, those of new prompts come out of it.
  void give_pools() {
    std::vector<ExpertSubset>& subsets = pass_.settings.subsets;
    subsets = options_.pass.subsets;
    subsets.resize(config_.n_layers);
    for (int64_t layer = 0; layer < static_cast<int64_t>(subsets.size()); ++layer) {
      const int64_t E = config_.routed_experts(layer);
      std::vector<uint8_t>& given = subsets[layer].pools;
      for (const int64_t slot : cache_.slots) {
        const std::vector<uint8_t>& pool = slots_[slot].pools[layer];
        given.insert(given.end(), pool.begin(), pool.end());
        if (pool.empty()) given.resize(given.size() + E, 0);
      }
    }
  }
  void keep_pools(const BlockView& block) {
    if (!block.pools.defined()) return;
    const int64_t layer = block.layer;
    const int64_t E = config_.routed_experts(layer);
    const auto* pool = block.pools.const_data_ptr<uint8_t>();
    for (const int64_t slot : cache_.slots) {
      slots_[slot].pools[layer].assign(pool, pool + E);
      pool += E;
    }
  }

  // One pass over the tokens that are next, and a drawn token for each sequence.
  std::vector<int32_t> step() {
    std::vector<Sequence> sequences;
    for (const int64_t slot : cache_.slots) {
      sequences.push_back({slots_[slot].next, 1, slots_[slot].prompt, 0, slots_[slot].seen});
    }
    if (pools()) {
      give_pools();
      pass_.after_block = [&](const BlockView& block) { keep_pools(block); };
    }
    return draw(sequence_batch(sequences));
  }

  std::vector<int32_t> draw(const Slice& batch) {
    const auto n = static_cast<int64_t>(cache_.slots.size());
    const int64_t V = config_.vocab_size;
    const auto* ends = batch.attention_ends.const_data_ptr<int32_t>();
    std::vector<int64_t> last;
    for (int64_t i = 0; i < n; ++i) last.push_back(ends[i + 1] - 1);
    const at::Tensor logits = inference_.logits(batch, pass_, last);
    const int64_t known = std::min(V, tokenizer_.vocab_size());  // padded rows mean nothing
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < n; ++i) {
      const Active& active = slots_[cache_.slots[i]];
      const uint64_t bits = random_bits(options_.sampling.seed, active.prompt,
                                        active.seen + static_cast<int64_t>(active.next.size()));
      tokens.push_back(
          sample(logits.const_data_ptr<float>() + i * V, known, options_.sampling, bits));
    }
    return tokens;
  }

  // Adds a drawn token to the answer of a slot, which becomes free where it ends.
  void take(int64_t slot, int32_t token) {
    Active& active = slots_[slot];
    Generated& result = results_[active.prompt];
    active.seen += static_cast<int64_t>(active.next.size());
    active.next = {token};
    bool ended = token == options_.eos_id;
    if (ended) {
      result.end = "eos";
    } else {
      result.tokens.push_back(token);
      // An id between the known ones that stands for nothing adds no text.
      active.text += tokenizer_.decode({token}).value_or("");
      ended = cut_at_stop(&active.text);
      if (ended) result.end = "stop";
      ended = ended || static_cast<int64_t>(result.tokens.size()) >= options_.max_new_tokens ||
              active.seen >= options_.max_positions - 1;
    }
    stream(&active, ended);
    if (!ended) return;
    result.text = std::move(active.text);
    if (options_.ended) options_.ended(active.prompt);
    active.prompt = -1;
  }

  bool cut_at_stop(std::string* text) const {
    size_t first = std::string::npos;
    for (const std::string& stop : options_.stop) first = std::min(first, text->find(stop));
    if (first == std::string::npos) return false;
    text->resize(first);
    return true;
  }

  void stream(Active* active, bool ended) const {
    if (!options_.stream) return;
    const size_t end = ended ? active->text.size() : certain_end(active->text, options_.stop);
    if (end <= active->streamed) return;
    options_.stream(active->prompt, active->text.substr(active->streamed, end - active->streamed));
    active->streamed = end;
  }

  Inference& inference_;
  const ModelConfig& config_;
  const Mesh& mesh_;
  const Tokenizer& tokenizer_;
  const std::vector<std::vector<int32_t>>& prompts_;
  const GenerationOptions& options_;
  std::vector<Active> slots_;
  KeyValueCache cache_;
  std::vector<Generated> results_;
  int64_t next_ = mesh_.world->rank();  // prompt
  InferenceOptions pass_;
};

}  // namespace

std::vector<Generated> generate(Inference* inference, const Tokenizer& tokenizer,
                                const std::vector<std::vector<int32_t>>& prompts,
                                const GenerationOptions& options) {
  if (prompts.empty()) return {};
  return Generator(inference, tokenizer, prompts, options).run();
}

}  // namespace emo
