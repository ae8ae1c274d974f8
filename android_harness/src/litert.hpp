// LiteRT's C API, opened with dlopen. No package of a registry has its header, so what is called is declared here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "runtime.hpp"

namespace quadbench {

// A tensor's type as LiteRT has it: 72 bytes, whose layout it calls stable.
struct LiteRtTensorType {
  std::int32_t element = 0;
  std::uint32_t rank : 7 = 0;
  std::uint32_t has_strides : 1 = 0;
  std::int32_t dimensions[8] = {};
  std::uint32_t strides[8] = {};
};
static_assert(sizeof(LiteRtTensorType) == 72);

// A setting of LiteRT's environment that is a text: LiteRtEnvOption, with the layout that it calls stable.
struct LiteRtTextOption {
  std::int32_t tag = 0;
  alignas(8) std::int32_t kind = 8;  // kLiteRtAnyTypeString
  const char* text = nullptr;
};
static_assert(sizeof(LiteRtTextOption) == 24);

// The functions that are called, by their names in the library. Handles are opaque; a status of 0 is success.
struct LiteRtApi {
  using Status = int;
  using Handle = void*;

  Status (*LiteRtCreateEnvironment)(int options, const void* values, Handle* environment);
  void (*LiteRtDestroyEnvironment)(Handle environment);
  Status (*LiteRtCreateModelFromFile)(Handle environment, const char* path, Handle* model);
  void (*LiteRtDestroyModel)(Handle model);
  Status (*LiteRtCreateOptions)(Handle* options);
  void (*LiteRtDestroyOptions)(Handle options);
  Status (*LiteRtSetOptionsHardwareAccelerators)(Handle options, int accelerators);
  Status (*LiteRtCreateOpaqueOptions)(const char* kind, void* text, void (*release)(void*), Handle* options);
  Status (*LiteRtAddOpaqueOptions)(Handle options, Handle opaque);
  Status (*LiteRtCreateCompiledModel)(Handle environment, Handle model, Handle options, Handle* compiled);
  void (*LiteRtDestroyCompiledModel)(Handle compiled);
  Status (*LiteRtGetModelSignature)(Handle model, std::size_t index, Handle* signature);
  Status (*LiteRtGetNumSignatureInputs)(Handle signature, std::size_t* count);
  Status (*LiteRtGetSignatureInputName)(Handle signature, std::size_t index, const char** name);
  Status (*LiteRtGetSignatureInputTensorByIndex)(Handle signature, std::size_t index, Handle* tensor);
  Status (*LiteRtGetNumSignatureOutputs)(Handle signature, std::size_t* count);
  Status (*LiteRtGetSignatureOutputName)(Handle signature, std::size_t index, const char** name);
  Status (*LiteRtGetSignatureOutputTensorByIndex)(Handle signature, std::size_t index, Handle* tensor);
  Status (*LiteRtGetRankedTensorType)(Handle tensor, LiteRtTensorType* type);
  Status (*LiteRtCreateTensorBufferFromHostMemory)(const LiteRtTensorType* type, void* memory, std::size_t bytes,
                                                   void (*release)(void*), Handle* buffer);
  void (*LiteRtDestroyTensorBuffer)(Handle buffer);
  Status (*LiteRtRunCompiledModel)(Handle compiled, std::size_t signature, std::size_t inputs, Handle* input_buffers,
                                   std::size_t outputs, Handle* output_buffers);
};

// One of LiteRT's objects, destroyed when it goes out of scope.
using LiteRtObject = std::unique_ptr<void, void (*)(void*)>;

class LiteRtRuntime final : public Runtime {
 public:
  // Opens the library. Throws InputError.
  explicit LiteRtRuntime(const RuntimePlan& plan);

  const std::string& version() const override { return version_; }
  Session load(const std::filesystem::path& graph, const SessionSettings& settings, const std::string& name) const override;

  // Throws RunError unless the status is 0.
  static void check(int status, const char* function, const std::string& where);

 private:
  LiteRtApi api_{};
  int accelerators_;
  std::string dispatch_folder_;  // LiteRT may keep pointing at it
  std::string version_ = "LiteRT";  // the library tells no version
  LiteRtObject environment_{nullptr, nullptr};
};

}  // namespace quadbench
