#include "eval/exchange_command.h"

#include <cstdio>
#include <memory>
#include <string>

#include "data/exit_code.h"
#include "data/json.h"
#include "eval/exchange.h"
#include "eval/mesh_options.h"

namespace emo {
namespace {

struct Options {
  std::string from, to;
  std::string architecture = "emo";
  ExportOptions write;
  bool json = false;
};

void print(const std::string& to, const ExchangeReport& report, bool json) {
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
  absl::StatusOr<ExchangeReport> report =
      export_model(posix_file_system(), options.from, options.to, write);
  if (!report.ok()) return report.status();
  print(options.to, *report, options.json);
  return kExitDone;
}

absl::StatusOr<int> run_import(const Options& options) {
  absl::StatusOr<ExchangeReport> report =
      import_model(posix_file_system(), options.from, options.to);
  if (!report.ok()) return report.status();
  print(options.to, *report, options.json);
  return kExitDone;
}

}  // namespace

Command export_command(CLI::App& parent) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand(
      "export", "A checkpoint as a Hugging Face folder: another type, vocabulary or sharding");
  app->add_option("CHECKPOINT", options->from, "model folder")->required();
  app->add_option("OUT", options->to, "folder to make")->required();
  app->add_option("--dtype", options->write.dtype, "fp32 or bf16; otherwise the checkpoint's")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  app->add_option("--vocab-size", options->write.vocab_size,
                  "rows of embedding and head: fewer leave out the last, more add zeros")
      ->check(CLI::Range(2, 1 << 24));
  app->add_option("--max-shard-size", options->write.max_shard_bytes,
                  "bytes of tensors in one file")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app->add_option("--as", options->architecture,
                  "model_type: emo, olmoe or olmo2_noqknorm_prenorm (dense)")
      ->capture_default_str();
  app->add_flag("--force", options->write.force,
                "also a model that the reference's class would compute differently");
  app->add_flag("--json", options->json, "one JSON object on standard output");
  app->footer(
      "Example: emo export runs/quickstart/emo/step-0001000 emo-hf --dtype bf16\n"
      "Then: AutoModelForCausalLM.from_pretrained('emo-hf', trust_remote_code=True)");
  return {app, [options] { return on_first_rank([&] { return run_export(*options); }); }};
}

Command import_command(CLI::App& parent) {
  auto options = std::make_shared<Options>();
  CLI::App* app = parent.add_subcommand(
      "import", "A Hugging Face folder (EMO, OLMoE, the reference's dense models) as a checkpoint");
  app->add_option("FOLDER", options->from, "folder with config.json and safetensors files")
      ->required();
  app->add_option("OUT", options->to, "checkpoint folder to make")->required();
  app->add_flag("--json", options->json, "one JSON object on standard output");
  app->footer("Example: emo import OLMoE-1B-7B-0924 runs/olmoe && emo eval runs/olmoe --data DIR");
  return {app, [options] { return on_first_rank([&] { return run_import(*options); }); }};
}

}  // namespace emo
