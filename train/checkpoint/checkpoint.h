// Checkpoints: a Hugging Face model folder plus the training state (design.md, "Checkpoint").
//
// <run.folder>/step-0001000/ holds
// - config.json and tokenizer.json: the model's description (hugging_face.h)
// - model-0000i-of-0000n.safetensors, one for each writing rank, and model.safetensors.index.json
// - optimizer-0000i-of-0000n.safetensors, with its index: exp_avg/<name>, exp_avg_sq/<name>; where
//   the model is bf16, master/<name>, the fp32 numbers that training goes on with. None of them
//   where the run's end keeps the model alone (checkpoint.last)
// - pruning_metadata.json: of a cut model, which experts of which model it has
// - placement.json: the order in which ranks hold the experts, where there is one (expert_order.h)
// - state.json: where the run is, its config, how much it evaluates, versions
// - data.json: which data it has seen (data/rows/data_record.h)
// - MANIFEST: size and SHA-256 of every other file, written last
//
// A folder is written under a temporary name, synced and renamed: without MANIFEST there is no
// checkpoint. Any layout reads any checkpoint.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/files/file_system.h"
#include "model/transformer.h"
#include "parallel/mesh.h"
#include "train/config/run_config.h"
#include "train/model_folder/hugging_face.h"
#include "train/optimizer/optimizer.h"
#include "train/optimizer/schedule.h"

namespace emo {

// How much an evaluation between steps computes, measured once: a resumed run evaluates the same.
struct EvaluationSize {
  int64_t tokens = 0;  // of forward passes, over all ranks; 0: not measured yet
  // Of the config that it was measured for:
  int64_t every = 0;
  double share = 0;
};

// What state.json holds beside times and versions.
struct TrainingPosition {
  int64_t step = 0;       // updates done
  int64_t sequences = 0;  // rows seen: where the loader goes on
  int64_t tokens = 0;
  std::string data_fingerprint;
  std::vector<std::pair<std::string, std::string>> config;  // to_pairs()
  EvaluationSize evaluation = {};
  double learning_rate = 0;           // of the last update; 0: not known
  ScheduleStart schedule_start = {};  // of a run whose schedule starts at a checkpoint
  int64_t data_start = 0;  // of the sequences, those of other data, before run.change_data
};

struct CheckpointContents {
  const Model* model;
  const OptimizerState* optimizer;  // null: the model alone
  const ModelDescription* description;
  TrainingPosition position;
  std::string tokenizer;     // tokenizer.json, written where not ""
  std::string pruning = {};  // of a cut model: pruning_metadata.json, else ""
  // Of the model's tensors. kBf16, where a device trains so: those of `model` are its masters.
  Precision precision = Precision::kFp32;
  std::string data = {};  // data.json (data/rows/data_record.h), where not ""
};

// Collective over the mesh; every rank gets the same answer. Writes
// `run_folder`/step-<position.step> and answers its path. AlreadyExists where it stands already;
// else what FileSystem says of the file that could not be written: then there is no checkpoint.
// REQUIRES: model and optimizer are those after position.step updates, with no parameter on its way
// (wait_for_parameters()); every parameter is finite.
absl::StatusOr<std::string> write_checkpoint(FileSystem& fs, const Mesh& mesh,
                                             const std::string& run_folder,
                                             const CheckpointContents& contents);

// The newest complete checkpoint of a run, or "" where there is none. Not collective: ranks on
// machines that see the folder at different times may differ, so one asks and tells the others
// (find_origin() in train/run_start.h).
absl::StatusOr<std::string> latest_checkpoint(const std::string& run_folder);

// Removes all complete checkpoints but the newest `keep`; 0 keeps all. Fails as FileSystem does.
// REQUIRES: called on one rank, when no rank reads or writes a checkpoint of the run.
absl::Status remove_old_checkpoints(FileSystem& fs, const std::string& run_folder, int64_t keep);

// DataLoss where a file is missing, or its size or SHA-256 is not what MANIFEST says. NotFound
// without MANIFEST. Files are split over `world`, every rank gets the same answer (collective).
absl::Status verify_checkpoint(Communicator& world, const std::string& folder);

// Whether a checkpoint has what training goes on with, beside the model. Local.
bool has_optimizer(const std::string& folder);

// The three below are local, and trust their folder. Order: verify_checkpoint() first, the model
// before its optimizer.
// NotFound without state.json, DataLoss where it is broken.
absl::StatusOr<TrainingPosition> read_position(const std::string& folder);

// Fills what this rank holds. NotFound where files are missing, DataLoss listing the tensors that
// do not fit; then the others have been filled. `step`: TrainingPosition's. REQUIRES: the optimizer
// is of the model's layout.
absl::Status read_model(const std::string& folder, Model* model);
// Where there are masters, they take the place of the model's parameters. FailedPrecondition where
// the checkpoint holds a model alone.
absl::Status read_optimizer(const std::string& folder, int64_t step, Model* model,
                            OptimizerState* optimizer);

}  // namespace emo
