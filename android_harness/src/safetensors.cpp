#include "safetensors.hpp"

#include <bit>
#include <cstring>
#include <limits>
#include <optional>

#include "errors.hpp"
#include "fields.hpp"

namespace quadbench {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian and are not swapped here");

constexpr std::size_t kLengthBytes = 8;
constexpr std::int64_t kLongestDimension = std::numeric_limits<std::int32_t>::max();

std::optional<std::size_t> element_bytes(const std::string& dtype) {
  static constexpr std::pair<const char*, std::size_t> kSizes[] = {{"BOOL", 1}, {"U8", 1},   {"I8", 1},  {"U16", 2}, {"I16", 2},
                                                                   {"F16", 2},  {"BF16", 2}, {"U32", 4}, {"I32", 4}, {"F32", 4},
                                                                   {"U64", 8},  {"I64", 8},  {"F64", 8}};
  for (const auto& [name, size] : kSizes) {
    if (dtype == name) return size;
  }
  return std::nullopt;
}

const char* name_in_file(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return "F32";
    case DType::kInt32: return "I32";
    case DType::kInt16: return "I16";
    case DType::kInt8: return "I8";
  }
  return "unknown";
}

std::size_t tensor_bytes(const Field& field, const SafeTensors::Entry& entry) {
  const auto size = element_bytes(entry.dtype);
  if (!size) field.at("dtype").fail("a known type such as F32, I16 or I8");
  std::size_t bytes = *size;
  for (const std::int64_t dimension : entry.shape) {
    const auto factor = static_cast<std::size_t>(dimension);
    if (factor != 0 && bytes > std::numeric_limits<std::size_t>::max() / factor)
      field.at("shape").fail("a shape that fits the file");
    bytes *= factor;
  }
  return bytes;
}

SafeTensors::Entry parse_entry(const Field& field, std::size_t data_begin, std::size_t file_bytes) {
  SafeTensors::Entry entry;
  entry.dtype = field.at("dtype").text();
  for (const Field& dimension : field.at("shape").items()) entry.shape.push_back(dimension.integer(0, kLongestDimension));
  const Field offsets = field.at("data_offsets");
  const auto ends = offsets.items();
  if (ends.size() != 2) offsets.fail("two offsets");
  constexpr std::int64_t kLongestFile = std::int64_t{1} << 48;
  entry.begin = data_begin + static_cast<std::size_t>(ends[0].integer(0, kLongestFile));
  entry.end = data_begin + static_cast<std::size_t>(ends[1].integer(0, kLongestFile));
  if (entry.end > file_bytes) {
    throw InputError(field.place(), field.place() + ": the file is cut off: the tensor ends at byte " +
                                        std::to_string(entry.end) + ", the file at " + std::to_string(file_bytes));
  }
  const std::size_t wanted = tensor_bytes(field, entry);
  if (entry.begin > entry.end || entry.end - entry.begin != wanted) {
    throw InputError(field.place(), field.place() + ": its offsets do not span the " + std::to_string(wanted) + " bytes of " +
                                        entry.dtype + " " + to_string(entry.shape));
  }
  return entry;
}

}  // namespace

SafeTensors::SafeTensors(const std::filesystem::path& path) : name_(path.string()), file_(path) {
  const auto bytes = file_.bytes();
  if (bytes.size() < kLengthBytes) throw InputError(name_, "'" + name_ + "' is too short for a safetensors file");
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), kLengthBytes);
  if (header_bytes > bytes.size() - kLengthBytes) {
    throw InputError(name_, "'" + name_ + "' is incomplete or not a safetensors file: its header would have " +
                                std::to_string(header_bytes) + " bytes, the file has " + std::to_string(bytes.size()));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, header_bytes);
  const Document header(text, name_);
  std::size_t covered = kLengthBytes + header_bytes;
  for (const auto& [tensor, field] : header.root(name_).entries()) {
    if (tensor == "__metadata__") {
      for (const auto& [key, value] : field.entries()) metadata_.emplace(key, value.any_text());
      continue;
    }
    const Entry entry = parse_entry(field, kLengthBytes + header_bytes, bytes.size());
    covered += entry.end - entry.begin;
    entries_.emplace(tensor, entry);
  }
  if (covered != bytes.size()) {
    throw InputError(name_, "'" + name_ + "' has " + std::to_string(bytes.size()) + " bytes, its header and tensors need " +
                                std::to_string(covered));
  }
}

std::span<const std::byte> SafeTensors::require(const TensorInfo& wanted) const {
  const Entry& found = entry(wanted.name);
  if (found.dtype != name_in_file(wanted.dtype) || found.shape != wanted.shape) {
    throw InputError(name_, "tensor '" + wanted.name + "' of '" + name_ + "' is " + found.dtype + " " + to_string(found.shape) +
                                ", expected " + name_in_file(wanted.dtype) + " " + to_string(wanted.shape));
  }
  return file_.bytes().subspan(found.begin, found.end - found.begin);
}

std::vector<float> SafeTensors::read_floats(const std::string& tensor, const Shape& shape) const {
  const auto bytes = require({.name = tensor, .dtype = DType::kFloat32, .shape = shape});
  std::vector<float> values(bytes.size() / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

const SafeTensors::Entry& SafeTensors::entry(const std::string& tensor) const {
  const auto found = entries_.find(tensor);
  if (found == entries_.end()) throw InputError(name_, "tensor '" + tensor + "' is not in '" + name_ + "'");
  return found->second;
}

}  // namespace quadbench
