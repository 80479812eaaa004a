#include "data/prepare/data_options.h"

#include <algorithm>

namespace emo {
namespace {

template <typename Enum>
Enum value_of(const std::string& name, const std::vector<std::string>& names) {
  return static_cast<Enum>(std::find(names.begin(), names.end(), name) - names.begin());
}

}  // namespace

void add_data_options(OptionList* list, DataOptions* options, TakesFolders folders,
                      NeedsIndex index) {
  const bool takes_folders = folders == TakesFolders::kYes;
  list->add(
          "DATA", &options->data,
          std::string(takes_folders ? "folder that emo prepare wrote, " : "") +
              "a mix (a file .txt of lines\n'label,path', or .yaml), a token file or a pattern of "
              "such")
      .required();
  RowsOptions& rows = options->rows;
  list->add("--root", &rows.names.root, "before a mix's relative paths; else its own folder");
  list->add("--tokenizer-name", &rows.names.tokenizer, "in the place of {TOKENIZER} in a mix");
  Option& vocab_size = list->add("--vocab-size", &rows.vocab_size, "ids are below it");
  Option& eos_id = list->add("--eos-id", &rows.eos_id, "the token that ends a document");
  vocab_size.at_least(2);
  eos_id.at_least(0);
  if (!takes_folders) {
    vocab_size.required();
    eos_id.required();
  }
  list->add("--dtype", &options->dtype, "of ids in files without a header")
      .one_of(id_type_names())
      .show_default();
  Option& folder =
      list->add("--index", &rows.index, "data.index: folder of emo data index, and of orders");
  if (index == NeedsIndex::kYes) folder.required();
  list->add("--sequence-length", &rows.sequence_length, "tokens in a row")
      .range(2, 1 << 24)
      .show_default();
}

void add_row_options(OptionList* list, DataOptions* options) {
  list->add("--documents", &options->documents, "data.documents")
      .one_of(packing_names())
      .show_default();
  list->add("--order", &options->order, "data.order").one_of(order_names()).show_default();
  list->add("--seed", &options->rows.seed, "data.seed, which decides the order").show_default();
}

RowsOptions rows_of(const DataOptions& options) {
  RowsOptions rows = options.rows;
  (is_mix(options.data) ? rows.mix : rows.paths.emplace_back()) = options.data;
  rows.dtype = value_of<IdType>(options.dtype, id_type_names());
  rows.order = value_of<Order>(options.order, order_names());
  rows.packing = value_of<DocumentPacking>(options.documents, packing_names());
  return rows;
}

}  // namespace emo
