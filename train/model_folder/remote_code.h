// The Python classes that let transformers open our model folders
// (train/model_folder/hugging_face/*.py). They are part of the program, so that every folder it
// writes carries the ones that fit.
#pragma once

#include <string>
#include <vector>

namespace emo {

struct RemoteCodeFile {
  std::string name;
  std::string text;
};

// configuration_emo.py and modeling_emo.py.
std::vector<RemoteCodeFile> remote_code();

}  // namespace emo
