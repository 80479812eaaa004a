#include "eval/commands.h"

#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_format.h"
#include "data/files/json.h"
#include "data/program/exit_code.h"
#include "eval/open/mesh_options.h"
#include "eval/verify/golden_check.h"
#include "parallel/agreement.h"

namespace emo {
namespace {

struct CheckOptions {
  std::string folder;
  MeshOptions mesh;
  bool json = false;
  bool all = false;
};

// The report's lines by kind: gradients and weights are many, so without --all only the worst of
// each kind and what fails is shown.
std::string kind_of(const std::string& what) {
  for (const char* kind : {"gradient ", "weight after "}) {
    if (what.rfind(kind, 0) == 0) return kind;
  }
  return "";
}

void print(const std::vector<Comparison>& report, bool all) {
  std::vector<const Comparison*> shown;
  for (const Comparison& c : report) {
    const std::string kind = kind_of(c.what);
    if (all || kind.empty() || !c.holds()) {
      shown.push_back(&c);
      continue;
    }
    bool worst = true;
    for (const Comparison& other : report) {
      const bool before = &other < &c;
      if (kind_of(other.what) == kind &&
          (other.deviation > c.deviation || (other.deviation == c.deviation && before))) {
        worst = false;
      }
    }
    if (worst) shown.push_back(&c);
  }
  for (const Comparison* c : shown) {
    std::printf("%-4s %-66s %9.2e  (at most %.0e %s)\n", c->holds() ? "ok" : "FAIL",
                c->what.c_str(), c->deviation, c->tolerance, c->unit.c_str());
  }
}

void print_ties(const std::vector<PassGap>& gaps) {
  for (const PassGap& gap : gaps) {
    if (!gap.is_tie()) continue;
    std::printf(
        "tie  %s: experts are chosen at a gap of %.1e, within rounding. The folder has no "
        "routing to replay: what differs from here on may be no more than another choice\n",
        gap.pass.c_str(), gap.gap);
  }
}

OrderedJson gaps_json(const std::vector<PassGap>& gaps) {
  OrderedJson json = OrderedJson::array();
  for (const PassGap& gap : gaps) {
    json.push_back({{"pass", gap.pass}, {"gap", gap.gap}, {"tie", gap.is_tie()}});
  }
  return json;
}

absl::StatusOr<int> run(const CheckOptions& options) {
  absl::StatusOr<Mesh> mesh = open_mesh(options.mesh);
  if (!mesh.ok()) return mesh.status();
  absl::StatusOr<GoldenReport> report =
      check_golden(options.folder, *mesh, device_named(options.mesh.device));
  absl::Status status = agree(*mesh->world, report.status());
  if (!status.ok()) return status;
  int64_t failed = 0;
  for (const Comparison& c : report->comparisons) failed += c.holds() ? 0 : 1;
  if (mesh->is_first() && options.json) {
    OrderedJson comparisons = OrderedJson::array();
    for (const Comparison& c : report->comparisons) {
      comparisons.push_back({{"what", c.what},
                             {"deviation", c.deviation},
                             {"tolerance", c.tolerance},
                             {"unit", c.unit},
                             {"holds", c.holds()}});
    }
    const OrderedJson json = {
        {"folder", options.folder},  {"holds", failed == 0},
        {"failed", failed},          {"dp", mesh->dp->size()},
        {"ep", mesh->ep->size()},    {"routing_gaps", gaps_json(report->gaps)},
        {"comparisons", comparisons}};
    std::printf("%s", to_text(json).c_str());
  } else if (mesh->is_first()) {
    print(report->comparisons, options.all);
    print_ties(report->gaps);
    std::printf("%s: %d of %d comparisons hold (dp %d, ep %d)\n", options.folder.c_str(),
                static_cast<int>(report->comparisons.size()) - static_cast<int>(failed),
                static_cast<int>(report->comparisons.size()), static_cast<int>(mesh->dp->size()),
                static_cast<int>(mesh->ep->size()));
  }
  return failed == 0 ? kExitDone : kExitDiffers;
}

}  // namespace

Command check_command() {
  auto options = std::make_shared<CheckOptions>();
  Command command;
  command.name = "check";
  command.summary = "Recompute what a golden folder holds, and say how far off we are";
  command.options
      .add("GOLDEN_DIR", &options->folder, "folder with golden.json and safetensors files")
      .required();
  add_mesh_options(&command.options, &options->mesh);
  add_device_option(&command.options, &options->mesh);
  command.options.add("--all", &options->all,
                      "show every gradient and weight, not the worst of each");
  command.options.add("--json", &options->json, "one JSON object on standard output");
  command.footer =
      "Example: mpirun -n 2 emo check tests/golden/emo_a --ep 2\n"
      "Exits 1 where a comparison is beyond its tolerance.";
  command.run = [options] { return run(*options); };
  return command;
}

}  // namespace emo
