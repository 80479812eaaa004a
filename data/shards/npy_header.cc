#include "data/shards/npy_header.h"

#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace emo {
namespace {

constexpr char kMagic[] = "\x93NUMPY";
constexpr size_t kMagicSize = 6;

// Reads a Python dict of strings, booleans and tuples of integers, as numpy writes it.
class DictReader {
 public:
  explicit DictReader(absl::string_view text) : rest_(text) {}

  bool take(char wanted) {
    skip_space();
    if (rest_.empty() || rest_[0] != wanted) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool string(std::string* value) {
    skip_space();
    if (rest_.empty() || (rest_[0] != '\'' && rest_[0] != '"')) return false;
    const size_t end = rest_.find(rest_[0], 1);
    if (end == absl::string_view::npos) return false;
    *value = std::string(rest_.substr(1, end - 1));
    rest_.remove_prefix(end + 1);
    return true;
  }
  // A word or number.
  std::string word() {
    skip_space();
    size_t length = 0;
    while (length < rest_.size() && (absl::ascii_isalnum(rest_[length]) || rest_[length] == '-'))
      ++length;
    std::string value(rest_.substr(0, length));
    rest_.remove_prefix(length);
    return value;
  }
  bool at_end() {
    skip_space();
    return rest_.empty();
  }

 private:
  void skip_space() {
    while (!rest_.empty() && absl::ascii_isspace(rest_[0])) rest_.remove_prefix(1);
  }
  absl::string_view rest_;
};

struct Described {
  std::string descr, order;
  bool has_shape = false;
  std::vector<int64_t> shape;
};

// "(" extents with commas between them ")"
bool read_shape(DictReader* reader, std::vector<int64_t>* shape) {
  if (!reader->take('(')) return false;
  while (!reader->take(')')) {
    int64_t extent = 0;
    if (!absl::SimpleAtoi(reader->word(), &extent) || extent < 0) return false;
    shape->push_back(extent);
    if (shape->size() > 1) return true;  // refused by the caller, whatever follows
    if (!reader->take(',')) return reader->take(')');
  }
  return true;
}

bool read_entry(DictReader* reader, Described* described) {
  std::string key;
  if (!reader->string(&key) || !reader->take(':')) return false;
  if (key == "descr") return reader->string(&described->descr);
  if (key == "fortran_order") {
    described->order = reader->word();
    return described->order == "True" || described->order == "False";
  }
  described->has_shape = true;
  return key == "shape" && read_shape(reader, &described->shape);
}

bool read_dict(absl::string_view text, Described* described) {
  DictReader reader(text);
  if (!reader.take('{')) return false;
  while (!reader.take('}')) {
    if (!read_entry(&reader, described)) return false;
    if (described->shape.size() > 1) return true;
    if (!reader.take(',')) return reader.take('}') && reader.at_end();
  }
  return reader.at_end();
}

// "<u4": order of bytes ("|": of one byte there is none), kind, width.
bool read_type(const std::string& descr, NpyHeader* header) {
  if (descr.size() != 3 || (descr[1] != 'u' && descr[1] != 'i')) return false;
  header->is_signed = descr[1] == 'i';
  header->width = descr[2] - '0';
  if (header->width == 1) return descr[0] == '|' || descr[0] == '<' || descr[0] == '=';
  const bool is_width = header->width == 2 || header->width == 4 || header->width == 8;
  return is_width && descr[0] == '<';
}

}  // namespace

bool begins_as_npy(absl::string_view bytes) {
  return absl::StartsWith(bytes, absl::string_view(kMagic, kMagicSize));
}

absl::StatusOr<NpyHeader> parse_npy_header(absl::string_view bytes, const std::string& where) {
  const auto damaged = [&](const std::string& why) {
    return absl::DataLossError(absl::StrCat(where, ": a NumPy file whose header ", why));
  };
  if (!begins_as_npy(bytes) || bytes.size() < 10) return damaged("is cut off");
  const auto byte = [&](size_t at) {
    return static_cast<uint64_t>(static_cast<uint8_t>(bytes[at]));
  };
  const uint64_t version = byte(6);
  if (version < 1 || version > 3) return damaged(absl::StrCat("is of version ", version));
  const size_t before = version == 1 ? 10 : 12;
  if (bytes.size() < before) return damaged("is cut off");
  uint64_t length = byte(8) | byte(9) << 8;
  if (version > 1) length |= byte(10) << 16 | byte(11) << 24;
  if (length > kMostNpyHeader - before) return damaged(absl::StrCat("has ", length, " bytes"));
  if (bytes.size() < before + length) return damaged("is cut off");
  Described described;
  if (!read_dict(bytes.substr(before, length), &described) || described.descr.empty() ||
      described.order.empty() || !described.has_shape) {
    return damaged("cannot be read");
  }
  NpyHeader header;
  header.size = static_cast<int64_t>(before + length);
  if (!read_type(described.descr, &header)) {
    return damaged(absl::StrCat("says type '", described.descr,
                                "'; token ids are little-endian integers: u1, <u2, <u4, <i4, ..."));
  }
  if (described.shape.size() != 1) return damaged("says more than one dimension, or none");
  header.count = described.shape[0];
  return header;
}

}  // namespace emo
