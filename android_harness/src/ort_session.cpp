#include <charconv>
#include <string_view>
#include <utility>

#include "adapter.hpp"
#include "errors.hpp"
#include "ort.hpp"

namespace quadbench {
namespace {

GraphOptimizationLevel level_of(Optimization optimization) {
  switch (optimization) {
    case Optimization::kNone: return ORT_DISABLE_ALL;
    case Optimization::kBasic: return ORT_ENABLE_BASIC;
    case Optimization::kExtended: return ORT_ENABLE_EXTENDED;
    case Optimization::kAll: return ORT_ENABLE_ALL;
  }
  return ORT_ENABLE_ALL;
}

ONNXTensorElementDataType element_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    case DType::kInt32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
    case DType::kInt16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16;
    case DType::kInt8: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
  }
  return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
}

DType dtype_of(ONNXTensorElementDataType type, const std::string& tensor, const std::string& graph) {
  for (const DType dtype : {DType::kFloat32, DType::kInt32, DType::kInt16, DType::kInt8}) {
    if (element_type(dtype) == type) return dtype;
  }
  throw InputError(graph, graph + ": '" + tensor + "' has ONNX element type " + std::to_string(type) +
                              ", expected float32, int32, int16 or int8");
}

void append_provider(const OrtRuntime& runtime, OrtSessionOptions* options, const ProviderPlan& provider) {
  const char* where = "runtime.execution_provider";
  std::vector<const char*> keys;
  std::vector<const char*> values;
  for (const auto& [key, value] : provider.options) {
    keys.push_back(key.c_str());
    values.push_back(value.c_str());
  }
  const OrtApi& api = runtime.api();
  try {
    if (provider.library) {
      const OrtEpDevice* device = runtime.device_of(provider.name);
      const PluginApi& plugins = runtime.plugin_api();
      runtime.check(plugins.SessionOptionsAppendExecutionProvider_V2(options, runtime.environment(), &device, 1, keys.data(),
                                                                     values.data(), keys.size()),
                    where);
      // What a plugin is given was compiled for its chip as a whole; on the CPU it would be measured as the chip's.
      runtime.check(api.AddSessionConfigEntry(options, "session.disable_cpu_ep_fallback", "1"), where);
    } else {
      const char* name = provider.name.c_str();
      runtime.check(api.SessionOptionsAppendExecutionProvider(options, name, keys.data(), values.data(), keys.size()), where);
    }
  } catch (const RunError& error) {
    throw InputError(error.where(), error.what());  // the plan names one that the library lacks
  }
  // A provider has threads of its own, and those of ONNX Runtime would be in their way if they waited by spinning.
  runtime.check(api.AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"), where);
}

void replace_file(const OrtRuntime& runtime, OrtSessionOptions* options, const FileInMemory& file, const char* where) {
  const char* name = file.name.c_str();
  char* bytes = reinterpret_cast<char*>(file.bytes.data());
  const std::size_t size = file.bytes.size();
  runtime.check(runtime.api().AddExternalInitializersFromFilesInMemory(options, &name, &bytes, &size, 1), where);
}

Handle<OrtSessionOptions> session_options(const OrtRuntime& runtime, const SessionSettings& settings, const char* where) {
  const OrtApi& api = runtime.api();
  OrtSessionOptions* created = nullptr;
  runtime.check(api.CreateSessionOptions(&created), where);
  Handle<OrtSessionOptions> options(created, {api.ReleaseSessionOptions});
  if (runtime.thread_pool() == ThreadPool::kShared) {
    runtime.check(api.DisablePerSessionThreads(created), where);
  } else {
    runtime.check(api.SetIntraOpNumThreads(created, settings.intra_op_threads), where);
    runtime.check(api.SetInterOpNumThreads(created, 1), where);
  }
  switch (runtime.arena()) {
    case Arena::kNone:
      runtime.check(api.DisableCpuMemArena(created), where);
      runtime.check(api.DisableMemPattern(created), where);  // one block for all of a run's tensors, which would stay
      [[fallthrough]];
    case Arena::kShared: runtime.check(api.AddSessionConfigEntry(created, "session.use_env_allocators", "1"), where); break;
    case Arena::kSession: break;
  }
  runtime.check(api.SetSessionExecutionMode(created, ORT_SEQUENTIAL), where);
  runtime.check(api.SetSessionGraphOptimizationLevel(created, level_of(settings.optimization)), where);
  // By default a MatMul with INT8 weights is fused into one that rounds its input to 8 bits, whatever the graph says; 1: float32.
  runtime.check(api.AddSessionConfigEntry(created, "session.qdq_matmulnbits_accuracy_level", "1"), where);
  if (settings.execution_provider) append_provider(runtime, created, *settings.execution_provider);
  if (settings.shares_context) runtime.check(api.AddSessionConfigEntry(created, "ep.share_ep_contexts", "1"), where);
  if (settings.weights) replace_file(runtime, created, *settings.weights, where);
  return options;
}

// quadbench names the rank of a LoRA input `<site>.rank<=N` where a graph takes lower ranks as well. Nothing for other names.
std::optional<std::int64_t> greatest_rank(std::string_view dimension) {
  constexpr std::string_view kMark = ".rank<=";
  constexpr std::int64_t kMost = 1 << 16;
  const std::size_t mark = dimension.rfind(kMark);
  if (mark == std::string_view::npos) return std::nullopt;
  const std::string_view digits = dimension.substr(mark + kMark.size());
  std::int64_t rank = 0;
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), rank);
  if (error != std::errc() || end != digits.end() || rank < 1 || rank > kMost) return std::nullopt;
  return rank;
}

// The two directions of the C API differ in the names of three functions only.
struct OrtDirection {
  decltype(OrtApi::SessionGetInputCount) count;
  decltype(OrtApi::SessionGetInputName) name;
  decltype(OrtApi::SessionGetInputTypeInfo) type;
};

TensorInfo tensor_info(const OrtRuntime& runtime, OrtSession* session, const OrtDirection& get, std::size_t index,
                       const std::string& graph) {
  const OrtApi& api = runtime.api();
  const char* where = graph.c_str();
  TensorInfo info;

  OrtAllocator* allocator = nullptr;
  char* name = nullptr;
  runtime.check(api.GetAllocatorWithDefaultOptions(&allocator), where);
  runtime.check(get.name(session, index, allocator, &name), where);
  info.name = name;
  runtime.check(api.AllocatorFree(allocator, name), where);

  OrtTypeInfo* type = nullptr;
  runtime.check(get.type(session, index, &type), where);
  const Handle<OrtTypeInfo> owner(type, {api.ReleaseTypeInfo});
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;
  runtime.check(api.CastTypeInfoToTensorInfo(type, &tensor), where);
  if (tensor == nullptr) throw InputError(graph, graph + ": '" + info.name + "' is not a tensor");

  ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  std::size_t rank = 0;
  runtime.check(api.GetTensorElementType(tensor, &element), where);
  runtime.check(api.GetDimensionsCount(tensor, &rank), where);
  info.dtype = dtype_of(element, info.name, graph);
  info.shape.resize(rank);
  runtime.check(api.GetDimensions(tensor, info.shape.data(), rank), where);
  std::vector<const char*> dimensions(rank);
  runtime.check(api.GetSymbolicDimensions(tensor, dimensions.data(), rank), where);
  if (const std::size_t axis = rank_axis(info); axis < rank && info.shape[axis] < 0) {
    if (const auto most = greatest_rank(dimensions[axis])) {
      info.shape[axis] = *most;
      info.has_free_rank = true;
    }
  }
  require_static(graph, info);
  return info;
}

std::vector<TensorInfo> tensor_infos(const OrtRuntime& runtime, OrtSession* session, const OrtDirection& get,
                                     const std::string& graph) {
  std::size_t count = 0;
  runtime.check(get.count(session, &count), graph.c_str());
  std::vector<TensorInfo> infos;
  for (std::size_t i = 0; i < count; ++i) infos.push_back(tensor_info(runtime, session, get, i, graph));
  return infos;
}

class OrtBinding final : public Binding::Form {
 public:
  OrtBinding(const OrtRuntime& runtime, OrtSession* session, Handle<OrtIoBinding> binding, std::string name)
      : runtime_(runtime), session_(session), binding_(std::move(binding)), name_(std::move(name)) {}

  void input(const TensorInfo& info, std::span<std::byte> memory) override {
    runtime_.check(runtime_.api().BindInput(binding_.get(), info.name.c_str(), value(info, memory)), info.name.c_str());
  }
  void output(const TensorInfo& info, std::span<std::byte> memory) override {
    runtime_.check(runtime_.api().BindOutput(binding_.get(), info.name.c_str(), value(info, memory)), info.name.c_str());
  }
  void run() override { runtime_.check(runtime_.api().RunWithBinding(session_, nullptr, binding_.get()), name_.c_str()); }

 private:
  OrtValue* value(const TensorInfo& info, std::span<std::byte> memory) {
    OrtValue* created = nullptr;
    runtime_.check(
        runtime_.api().CreateTensorWithDataAsOrtValue(runtime_.cpu_memory(), memory.data(), info.bytes(), info.shape.data(),
                                                      info.shape.size(), element_type(info.dtype), &created),
        info.name.c_str());
    values_.emplace_back(created, Release<OrtValue>{runtime_.api().ReleaseValue});
    return created;
  }

  const OrtRuntime& runtime_;
  OrtSession* session_;
  Handle<OrtIoBinding> binding_;
  std::string name_;
  std::vector<Handle<OrtValue>> values_;
};

class OrtGraph final : public Session::Form {
 public:
  OrtGraph(const OrtRuntime& runtime, const std::filesystem::path& graph, const SessionSettings& settings, std::string name)
      : runtime_(runtime), name_(std::move(name)) {
    const OrtApi& api = runtime.api();
    const auto options = session_options(runtime, settings, name_.c_str());
    OrtSession* created = nullptr;
    runtime.check(api.CreateSession(runtime.environment(), graph.c_str(), options.get(), &created), name_.c_str());
    session_ = {created, {api.ReleaseSession}};
  }

  Binding binding() const override {
    OrtIoBinding* created = nullptr;
    runtime_.check(runtime_.api().CreateIoBinding(session_.get(), &created), name_.c_str());
    Handle<OrtIoBinding> owner(created, {runtime_.api().ReleaseIoBinding});
    return Binding(std::make_unique<OrtBinding>(runtime_, session_.get(), std::move(owner), name_));
  }
  std::vector<TensorInfo> inputs() const override {
    const OrtApi& api = runtime_.api();
    return tensor_infos(runtime_, session_.get(),
                        {api.SessionGetInputCount, api.SessionGetInputName, api.SessionGetInputTypeInfo}, name_);
  }
  std::vector<TensorInfo> outputs() const override {
    const OrtApi& api = runtime_.api();
    return tensor_infos(runtime_, session_.get(),
                        {api.SessionGetOutputCount, api.SessionGetOutputName, api.SessionGetOutputTypeInfo}, name_);
  }

 private:
  const OrtRuntime& runtime_;
  std::string name_;
  Handle<OrtSession> session_;
};

}  // namespace

Session OrtRuntime::load(const std::filesystem::path& graph, const SessionSettings& settings, const std::string& name) const {
  return Session(std::make_unique<OrtGraph>(*this, graph, settings, name), graph, name);
}

}  // namespace quadbench
