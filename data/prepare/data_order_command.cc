#include <memory>

#include "absl/strings/str_format.h"
#include "data/files/json.h"
#include "data/prepare/commands.h"
#include "data/prepare/data_options.h"
#include "data/program/exit_code.h"
#include "data/rows/loader.h"

namespace emo {
namespace {

struct PrintedOrder {
  DataOptions data;
  int64_t first = 0, count = 8;
};

absl::StatusOr<int> print_order(const PrintedOrder& options) {
  absl::StatusOr<Rows> rows = open_rows(rows_of(options.data));
  if (!rows.ok()) return rows.status();
  const LoaderOptions loader = loader_of(rows_of(options.data), *rows);
  OrderedJson sequence = OrderedJson::array();
  for (int64_t i = options.first; i < options.first + options.count; ++i) {
    absl::StatusOr<int64_t> chunk = chunk_of_sequence(*rows->chunks, loader, i);
    if (!chunk.ok()) return chunk.status();
    sequence.push_back(*chunk);
  }
  OrderedJson json = {{"chunks", rows->chunks->num_chunks()}};
  if (rows->reference) {
    json["group"] = reference_group(options.data.rows.sequence_length);
    json["sequences_per_epoch"] = rows->reference->sequences_per_epoch();
  }
  if (rows->mix) {
    const std::vector<double> shares = rows->mix->shares();
    OrderedJson sources = OrderedJson::array();
    for (const SourcePosition& at : rows->mix->positions(options.first)) {
      sources.push_back({{"label", at.label},
                         {"share", shares[sources.size()]},
                         {"sequences", at.sequences},
                         {"epochs", at.epochs}});
    }
    json["sources"] = sources;
  }
  json["first"] = options.first;
  json["order"] = sequence;
  absl::PrintF("%s\n", to_text(json));
  return kExitDone;
}

}  // namespace

Command data_order_command() {
  auto options = std::make_shared<PrintedOrder>();
  options->data.order = "reference";
  options->data.rows.sequence_length = 4096;
  options->data.rows.batch = 1024;
  Command command;
  command.name = "data order";
  command.summary = "Print which chunks of its data a run sees, in order, as JSON";
  add_data_options(&command.options, &options->data, TakesFolders::kYes);
  add_row_options(&command.options, &options->data);
  command.options.add("--batch", &options->data.rows.batch, "sequences of a step (train.batch)")
      .at_least(1)
      .show_default();
  command.options.add("--first", &options->first, "first sequence of the run to print")
      .at_least(0)
      .show_default();
  command.options.add("--count", &options->count, "how many").at_least(1).show_default();
  command.footer =
      "Of a mix with weights (--order ours), also where each source is at --first.\n"
      "Example: emo data order configs/mixes/OLMoE-mix-0824.txt --root /data --index "
      "/scratch/index \\\n"
      "           --tokenizer-name allenai/dolma2-tokenizer --vocab-size 100278 --eos-id 100257";
  command.run = [options] { return print_order(*options); };
  return command;
}

}  // namespace emo
