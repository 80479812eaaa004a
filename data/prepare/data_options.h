// Data as options of a command say it.
#pragma once

#include <string>

#include "data/program/options.h"
#include "data/rows/open_rows.h"

namespace emo {

struct DataOptions {
  std::string data;  // a folder of emo prepare, a mix, a token file or a pattern
  std::string dtype = "by_vocabulary";
  std::string order = "ours";
  std::string documents = "cut";
  RowsOptions rows;  // what is not said above; see rows_of()
};

enum class TakesFolders { kNo, kYes };  // of emo prepare, which say vocabulary and end token
enum class NeedsIndex { kNo, kYes };

// DATA and how to read it: --root, --tokenizer-name, --vocab-size, --eos-id, --dtype, --index,
// --sequence-length.
void add_data_options(OptionList* list, DataOptions* options, TakesFolders folders,
                      NeedsIndex index = NeedsIndex::kNo);
// How its rows are made: --documents, --order, --seed.
void add_row_options(OptionList* list, DataOptions* options);

RowsOptions rows_of(const DataOptions& options);

}  // namespace emo
