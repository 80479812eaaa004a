// A model folder, opened for evaluation.
#pragma once

#include <memory>
#include <string>
#include "data/program/options.h"

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/shards/token_dataset.h"
#include "data/tokenizer/tokenizer.h"
#include "eval/open/mesh_options.h"
#include "model/inference.h"
#include "model/transformer.h"
#include "parallel/mesh.h"
#include "train/model_folder/hugging_face.h"

namespace emo {

struct OpenedModel {
  std::string folder;
  ModelDescription description;
  std::string identity;  // of the model that `folder` holds, uncut (train/subset/cut_model.h)
  std::unique_ptr<Model> model;  // where it computes
};

// Collective; every rank gets the same answer. Reads config.json and this rank's parameters, and
// with a `subset`, the path of a SUBSET.json, only those of the experts that it keeps: the same
// model that `emo experts extract` writes. `path`: a model folder, or a run's folder, which stands
// for its newest checkpoint (find_model). NotFound where it is neither; DataLoss where files do not
// fit, or the subset was chosen from another model; InvalidArgument where the device of `where`,
// which is the mesh's, cannot compute the model, or the CPU is asked for bf16.
absl::StatusOr<OpenedModel> open_model(const std::string& path, const Mesh& mesh,
                                       const std::string& subset = "",
                                       const MeshOptions& where = {});

// Where the model was opened to compute. Both must outlive it.
std::unique_ptr<Inference> open_inference(const OpenedModel& model, const Mesh& mesh);

// --experts SUBSET.json
void add_subset_option(OptionList* list, std::string* subset);

// Collective; every rank gets the same answer. The tokenizer.json of the model's folder; NotFound
// where it has none, DataLoss where it has tokens beyond the model's vocabulary.
absl::StatusOr<Tokenizer> open_tokenizer(const OpenedModel& model, const Mesh& mesh);

// Collective; every rank gets the same answer. Opens prepared data and checks that its tokens are
// the model's: same tokenizer where the folder has one, no token beyond the vocabulary.
absl::StatusOr<TokenDataset> open_data_for(const OpenedModel& model, const std::string& folder,
                                           const Mesh& mesh);

}  // namespace emo
