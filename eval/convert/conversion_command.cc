#include "eval/commands.h"

#include <cstdio>
#include <memory>
#include <string>

#include "data/files/json.h"
#include "data/program/exit_code.h"
#include "eval/convert/conversion.h"
#include "eval/open/mesh_options.h"
#include "train/checkpoint/find_model.h"

namespace emo {
namespace {

struct Options {
  std::string from, to;
  std::string architecture = "emo";
  ExportOptions write;
  bool json = false;
};

void print(const std::string& to, const ConversionReport& report, bool json) {
  const ModelDescription& d = report.description;
  if (json) {
    const OrderedJson object = {
        {"folder", to},
        {"tensors", report.tensors},
        {"files", report.files},
        {"bytes", report.bytes},
        {"vocab_size", d.config.vocab_size},
        {"num_experts", d.config.moe_layers() > 0 ? d.config.num_experts : 0},
        {"contract", d.contract_stated ? "stated" : "unstated"}};
    std::printf("%s", to_text(object).c_str());
    return;
  }
  std::printf("%s: %lld tensors in %lld files, %.3f GB\n", to.c_str(),
              static_cast<long long>(report.tensors), static_cast<long long>(report.files),
              static_cast<double>(report.bytes) / 1e9);
  if (!d.contract_stated) {
    std::printf(
        "Its routing contract is not stated: it is evaluated without document pools, and a run\n"
        "that starts from it must state one (section 'routing', run.change_contract=true).\n");
  }
}

absl::StatusOr<int> run_export(const Options& options) {
  absl::StatusOr<Architecture> architecture = parse_architecture(options.architecture);
  if (!architecture.ok()) return architecture.status();
  ExportOptions write = options.write;
  write.architecture = *architecture;
  absl::StatusOr<ConversionReport> report =
      export_model(posix_file_system(), options.from, options.to, write);
  if (!report.ok()) return report.status();
  print(options.to, *report, options.json);
  return kExitDone;
}

absl::StatusOr<int> run_import(const Options& options) {
  absl::StatusOr<ConversionReport> report =
      import_model(posix_file_system(), options.from, options.to);
  if (!report.ok()) return report.status();
  print(options.to, *report, options.json);
  return kExitDone;
}

}  // namespace

Command export_command() {
  auto options = std::make_shared<Options>();
  Command command;
  command.name = "export";
  command.summary = "A checkpoint as a Hugging Face folder: another type, vocabulary or sharding";
  command.options.add("CHECKPOINT", &options->from, kModelHelp).required();
  command.options.add("OUT", &options->to, "folder to make").required();
  command.options.add("--dtype", &options->write.dtype, "fp32 or bf16; otherwise the checkpoint's")
      .one_of({"fp32", "bf16"});
  command.options
      .add("--vocab-size", &options->write.vocab_size,
           "rows of embedding and head: fewer leave out the last, more add zeros")
      .range(2, 1 << 24);
  command.options
      .add("--max-shard-size", &options->write.max_shard_bytes, "bytes of tensors in one file")
      .at_least(1)
      .show_default();
  command.options
      .add("--as", &options->architecture,
           "model_type: emo, olmoe or olmo2_noqknorm_prenorm (dense)")
      .show_default();
  command.options.add("--force", &options->write.force,
                      "also a model that the reference's class would compute differently");
  command.options.add("--json", &options->json, "one JSON object on standard output");
  command.footer =
      "Example: emo export runs/quickstart/emo emo-hf --dtype bf16\n"
      "Then: AutoModelForCausalLM.from_pretrained('emo-hf', trust_remote_code=True)";
  command.run = [options] { return on_first_rank([&] { return run_export(*options); }); };
  return command;
}

Command import_command() {
  auto options = std::make_shared<Options>();
  Command command;
  command.name = "import";
  command.summary =
      "A Hugging Face folder (EMO, OLMoE, the reference's dense models) as a checkpoint";
  command.options.add("FOLDER", &options->from, "folder with config.json and safetensors files")
      .required();
  command.options.add("OUT", &options->to, "checkpoint folder to make").required();
  command.options.add("--json", &options->json, "one JSON object on standard output");
  command.footer =
      "Example: emo import OLMoE-1B-7B-0924 runs/olmoe && emo eval runs/olmoe --data DIR";
  command.run = [options] { return on_first_rank([&] { return run_import(*options); }); };
  return command;
}

}  // namespace emo
