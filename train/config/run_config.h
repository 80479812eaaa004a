// The config of a run: what stands in a YAML file, with defaults, ranges and the checks that need
// several keys. Configs are parsed here and nowhere else.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/rows/loader.h"
#include "data/rows/open_rows.h"
#include "data/rows/synthetic.h"
#include "model/config.h"
#include "model/host/bf16.h"
#include "train/optimizer/optimizer.h"
#include "train/optimizer/schedule.h"

namespace emo {

enum class DeviceKind {
  kCpu,
  kCuda,      // one GPU a rank
  kEmulated,  // the code of the GPU, its kernels as loops on the CPU: slow, to check it
};

enum class Take { kWeights, kWeightsAndOptimizer, kAll };

struct RunConfig {
  struct Run {
    std::string folder;
    uint64_t seed = 0;           // of pool sizes; and every seed that the config does not set
    std::string start_from;      // a checkpoint that a new run starts from
    Take take = Take::kWeights;  // what it takes from there
    std::string experts;         // SUBSET.json: of its experts only these; with kWeights
    bool change_contract = false;
    bool change_data = false;  // with take all: data, order or seed may be another
  } run;
  ModelConfig model;
  bool document_attention = true;  // false: attention runs across documents
  EosRoutesWith eos_routes_with = EosRoutesWith::kPrevious;
  RoutingContract routing;
  struct Data {
    std::vector<std::string> path;  // folder of emo prepare, or token files and patterns; or ...
    std::string mix;                // ... a file that lists token files (data/mix/mix.h); or ...
    std::optional<SyntheticOptions> synthetic;  // ... documents that the program makes
    // Of token files:
    std::string root;                      // before a mix's relative paths; "": the mix's folder
    std::string tokenizer_name;            // in the place of a mix's {TOKENIZER}
    std::string tokenizer;                 // tokenizer.json, or its folder: copied into checkpoints
    int64_t eos_id = -1;                   // -1: not said
    IdType dtype = IdType::kByVocabulary;  // of files without a header
    std::string index;                     // folder for what is made of the data, such as its order
    int64_t seed = -1;                     // of the order; -1: run.seed
    Order order = Order::kOurs;
    DocumentPacking documents = DocumentPacking::kCut;
    int64_t sequence_length = 1024;
    bool repetition_filter = false;  // the reference's instance filter
  } data;
  struct Train {
    int64_t steps = 0;
    int64_t tokens = 0;  // another way to say steps: the fewest that see as many tokens
    int64_t batch = 0;   // sequences of a step
    int64_t micro_batches = 1;
    double clip = 1.0;
    double lm_z_weight = 1e-5;
    Freeze freeze = Freeze::kNone;
    int64_t log_every = 1;  // steps between lines of metrics
  } train;
  AdamWOptions optimizer;
  Schedule schedule;
  struct Parallel {
    int64_t ep = 1;
    Recompute recompute = Recompute::kNone;
    int64_t slices = 1;
    int64_t zero = 1;       // ZeRO stage: 1 shards moments, 2 gradients too
    std::string placement;  // file of emo experts place; "": what the checkpoint carries
    Precision precision = Precision::kFp32;  // asked for: see choose_precision()
    DeviceKind device = DeviceKind::kCpu;    //
  } parallel;
  struct Eval {
    int64_t every = 0;    // steps; 0: none
    std::string data;     // folder of emo prepare, its labels the domains
    std::string tasks;    // task file, or a folder of them
    double share = 0.01;  // of the training time, which the sample's size follows from
    int64_t tokens = 0;   // of forward passes at a time, instead of a share; 0: as share says
  } eval;
  struct Checkpoint {
    int64_t every = 1000;  // steps; 0: only at the end
    int64_t keep = 2;      // newest ones; 0: all
    // Of the checkpoint that ends a run: the model alone cannot be trained further with its
    // moments.
    enum class Last { kAll, kModel } last = Last::kAll;
  } checkpoint;

  int64_t total_steps() const;
  uint64_t data_seed() const;    // data.seed, or run.seed where that is not given
  LoaderOptions loader() const;  // without what orders need to know of the data
  RowsOptions rows() const;      // of data that is not synthetic
};

// What takes the place of a config's value.
struct Override {
  std::string key;    // "section.key"
  std::string value;  // YAML, as none or {min: 4, max: 28}
  std::string place;  // where it stands, for errors
};

// From "section.key=value" of a command line; InvalidArgument where it is not so.
absl::StatusOr<Override> parse_override(const std::string& text);

// Reads a file and overrides on top of it. InvalidArgument with all errors at once, one a line:
// "file:line:column: what; did you mean ...". NotFound where there is no file.
absl::StatusOr<RunConfig> read_run_config(const std::string& path,
                                          const std::vector<std::string>& overrides);
// `errors`: what was wrong before, to be said with the others.
absl::StatusOr<RunConfig> read_overridden_config(const std::string& path,
                                                 const std::vector<Override>& overrides,
                                                 std::vector<std::string> errors = {});

// The complete config, defaults included, as YAML that reads back to the same.
std::string to_yaml(const RunConfig& config);

// The same as flat pairs "section.key" -> value, in order.
std::vector<std::pair<std::string, std::string>> to_pairs(const RunConfig& config);

// Resuming: what differs between a checkpoint's pairs and now that changes the run, a line each;
// empty where the run may go on. Keys that only say where and how it runs are left out.
std::vector<std::string> differences_that_matter(
    const std::vector<std::pair<std::string, std::string>>& then,
    const std::vector<std::pair<std::string, std::string>>& now);

}  // namespace emo
