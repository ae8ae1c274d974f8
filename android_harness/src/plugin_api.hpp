// Plugin API: what ONNX Runtime's function table holds for plugin libraries of execution providers, whichever header is
// installed. API 22 added it, and OrtApi grows at its end alone: in a table of 22 or newer it follows the last entry of API 21.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include <onnxruntime_c_api.h>

#if ORT_API_VERSION < 21
#error "onnxruntime_c_api.h is older than API 21; install headers of ONNX Runtime 1.21 or newer"
#endif

struct OrtEpDevice;  // opaque; headers of API 22 or newer declare it too

namespace quadbench {

constexpr std::uint32_t kPluginApiVersion = 22;

// The entries 285 to 312 of the table, counted from 0; what this program does not call stands as slots, which keep the distances.
struct PluginApi {
  using Slot = void (*)();

  Slot unused_before_register[16];
  OrtStatus* (*RegisterExecutionProviderLibrary)(OrtEnv* environment, const char* name, const char* library) noexcept;
  Slot unused_unregister;
  OrtStatus* (*GetEpDevices)(const OrtEnv* environment, const OrtEpDevice* const** devices, std::size_t* count) noexcept;
  OrtStatus* (*SessionOptionsAppendExecutionProvider_V2)(OrtSessionOptions* options, OrtEnv* environment,
                                                         const OrtEpDevice* const* devices, std::size_t device_count,
                                                         const char* const* keys, const char* const* values,
                                                         std::size_t option_count) noexcept;
  Slot unused_before_name[7];
  const char* (*EpDevice_EpName)(const OrtEpDevice* device);

  // `table` must be of API kPluginApiVersion or newer: an older one ends before these entries.
  static PluginApi of(const OrtApi& table);
};

constexpr std::size_t kEndOfApi21 = offsetof(OrtApi, SetEpDynamicOptions) + sizeof(PluginApi::Slot);
static_assert(kEndOfApi21 == 285 * sizeof(PluginApi::Slot), "the table of API 21 has 285 entries");
static_assert(sizeof(PluginApi) == 28 * sizeof(PluginApi::Slot), "EpDevice_EpName is the 28th entry after those of API 21");
static_assert(std::is_trivially_copyable_v<PluginApi> && std::is_standard_layout_v<PluginApi>);

#if ORT_API_VERSION == 21
static_assert(sizeof(OrtApi) == kEndOfApi21, "SetEpDynamicOptions is the last entry of API 21");
#else  // the installed header knows the entries: it must agree
#define QUADBENCH_ASSERT_ENTRY(entry)                                                                             \
  static_assert(kEndOfApi21 + offsetof(PluginApi, entry) == offsetof(OrtApi, entry), #entry " stands elsewhere"); \
  static_assert(requires(OrtApi table, PluginApi entries) { entries.entry = table.entry; })
QUADBENCH_ASSERT_ENTRY(RegisterExecutionProviderLibrary);
QUADBENCH_ASSERT_ENTRY(GetEpDevices);
QUADBENCH_ASSERT_ENTRY(SessionOptionsAppendExecutionProvider_V2);
QUADBENCH_ASSERT_ENTRY(EpDevice_EpName);
#undef QUADBENCH_ASSERT_ENTRY
#endif

inline PluginApi PluginApi::of(const OrtApi& table) {
  PluginApi entries;
  std::memcpy(&entries, reinterpret_cast<const std::byte*>(&table) + kEndOfApi21, sizeof entries);
  return entries;
}

}  // namespace quadbench
