#include "train/checkpoint/weights_only_state.h"

#include "absl/strings/match.h"
#include "data/files/json.h"
#include "train/config/run_config.h"

namespace emo {

std::string weights_only_state(const std::string& from, const ModelDescription& description) {
  OrderedJson config = OrderedJson::object();
  if (description.contract_stated) {
    RunConfig run;
    run.routing = description.contract;
    run.eos_routes_with = description.eos_routes_with;
    for (const auto& [key, value] : to_pairs(run)) {
      if (absl::StartsWith(key, "routing.")) config[key] = value;
    }
  }
  const OrderedJson json = {{"step", 0},        {"sequences", 0},
                            {"tokens", 0},      {"data_fingerprint", ""},
                            {"config", config}, {"made_from", from}};
  return to_text(json);
}

}  // namespace emo
