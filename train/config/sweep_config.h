// A sweep: several configs that differ in what is asked about, each trained with several seeds, and
// what is measured of them. What stands in a YAML file; docs/sweeps.md.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "train/config/run_config.h"
#include "train/subset/keep.h"

namespace emo {

struct SweepArm {
  std::string name;                 // a folder's name
  std::string about;                // "": nothing is said
  std::vector<Override> overrides;  // what makes it this arm
  std::vector<uint64_t> seeds;      // some of the sweep's
  bool cut = true;                  // whether subsets of its experts are measured
  std::string place;                // where it stands
};

struct SweepConfig {
  std::string path;            // of its file
  std::string base;            // config that all arms start from
  std::string folder;          // of everything that it writes
  std::vector<Override> set;   // of all arms, under an arm's own
  std::vector<SweepArm> arms;  // in the order of the file; of a grid, the last key changes first
  std::vector<uint64_t> seeds;
  std::string baseline;  // name of the arm that the others are compared with
  int64_t ranks = 0;     // MPI processes of a run; 0: parallel.ep of its config
  struct Measure {
    std::string test;                               // folder of emo prepare: losses
    std::string validation;                         // the same: to rank experts by
    std::string tasks;                              // task file or folder
    std::vector<Keep> keep;                         // none: experts are not cut
    std::vector<std::string> methods = {"router"};  // of emo experts rank; the first is compared
    std::vector<int64_t> documents;                 // smaller calibration sizes
    int64_t test_documents = 0;                     // of each domain, for each cut; 0: all
    bool other_domain = false;                      // also by another domain's experts
    int64_t copies_on = 4;  // ranks that a token's copies are counted for; 0: they are not
  } measure;

  const SweepArm* find(const std::string& arm) const;  // null: there is none
};

// What the command line says beside the file. `folder` "": the file's, or runs/<name of the file>.
// `changes`: "section.key" of configs goes on top of `set`; "measure.key", "seeds", "ranks" and
// "baseline" in the place of the file's.
struct SweepChanges {
  std::string folder;
  std::vector<std::string> changes;
};

// Reads a sweep. {folder} in a value stands for its folder. InvalidArgument with all errors at
// once, as read_run_config(); those of the arms' configs are not looked for here. NotFound where
// there is no file.
absl::StatusOr<SweepConfig> read_sweep_config(const std::string& path, const SweepChanges& changes);

// The overrides of one run, least important first: what sweeps say, the seed, `set`, the arm.
std::vector<Override> run_overrides(const SweepConfig& sweep, const SweepArm& arm, uint64_t seed);

// Where one run stands: <folder>/<arm>/seed-<n>.
std::string run_folder(const SweepConfig& sweep, const SweepArm& arm, uint64_t seed);

}  // namespace emo
