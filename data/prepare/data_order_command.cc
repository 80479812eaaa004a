#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "data/files/json.h"
#include "data/files/output.h"
#include "data/order/reference_order.h"
#include "data/prepare/commands.h"
#include "data/prepare/token_file_options.h"
#include "data/program/exit_code.h"

namespace emo {
namespace {

struct OrderOptions {
  TokenFileOptions files;
  int64_t batch = 1024;
  int64_t seed = 0;
  int64_t first = 0, count = 8;
  std::string index;
};

absl::StatusOr<int> show_order(const OrderOptions& options) {
  const int64_t group = reference_group(options.files.sequence_length);
  absl::StatusOr<std::unique_ptr<TokenChunks>> chunks = open_token_files(options.files, group);
  if (!chunks.ok()) return chunks.status();
  absl::StatusOr<std::unique_ptr<ReferenceOrder>> order =
      ReferenceOrder::create({(*chunks)->num_chunks(), group, options.batch,
                              static_cast<uint64_t>(options.seed), options.index});
  if (!order.ok()) return order.status();
  OrderedJson sequence = OrderedJson::array();
  for (int64_t i = options.first; i < options.first + options.count; ++i) {
    absl::StatusOr<int64_t> chunk = (*order)->chunk(i);
    if (!chunk.ok()) return chunk.status();
    sequence.push_back(*chunk);
  }
  const OrderedJson json = {{"chunks", (*chunks)->num_chunks()},
                            {"group", group},
                            {"sequences_per_epoch", (*order)->sequences_per_epoch()},
                            {"first", options.first},
                            {"order", sequence}};
  absl::PrintF("%s\n", to_text(json));
  return kExitDone;
}

}  // namespace

Command data_order_command() {
  auto options = std::make_shared<OrderOptions>();
  Command command;
  command.name = "data order";
  command.summary =
      "Print which chunks of token files a run sees in the reference's order, as JSON";
  add_token_file_options(&command.options, &options->files);
  command.options.add("--batch", &options->batch, "sequences of a step (train.batch)")
      .at_least(1)
      .show_default();
  command.options.add("--seed", &options->seed, "data.seed").at_least(0).show_default();
  command.options.add("--first", &options->first, "first sequence of the run to print")
      .at_least(0)
      .show_default();
  command.options.add("--count", &options->count, "how many").at_least(1).show_default();
  command.options.add("--index", &options->index, "data.index: folder that keeps the order");
  command.footer =
      "Example: emo data order configs/mixes/OLMoE-mix-0824.txt --root /data --index "
      "/scratch/index \\\n"
      "           --tokenizer-name allenai/dolma2-tokenizer --vocab-size 100278 --eos-id 100257";
  command.run = [options] { return show_order(*options); };
  return command;
}

}  // namespace emo
