// SPDX-License-Identifier: Apache-2.0
// The part of ONNX Runtime's C interface that is used here, so that neither its headers nor the
// library are needed to build. The interface is a table of functions which grows at its end only:
// an entry's place never changes. Entries that are not used are left as gaps.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mstpp::ort {

struct CudaOptions;
struct Env;
struct MemoryInfo;
struct RunOptions;
struct Session;
struct SessionOptions;
struct Status;  // null: all went well
struct Value;

using Gap = void*;
using LogFunction = void (*)(void* context, int severity, const char* category, const char* id,
                             const char* place, const char* message);

// Their values in the interface.
constexpr int kLogFatal = 4;
constexpr int kOptimizeAll = 99;
constexpr int kFloat = 1;
constexpr int kDeviceAllocator = 0;
constexpr int kDefaultMemory = 0;

// The oldest version whose table has all of the entries below: ONNX Runtime 1.11.
constexpr uint32_t kApiVersion = 11;

struct Api {
  Gap gap0[2];
  const char* (*GetErrorMessage)(const Status* status);
  Gap gap3[1];
  Status* (*CreateEnvWithCustomLogger)(LogFunction log, void* context, int severity, const char* id,
                                       Env** env);
  Gap gap5[3];
  Status* (*CreateSessionFromArray)(const Env* env, const void* model, size_t bytes,
                                    const SessionOptions* options, Session** session);
  Status* (*Run)(Session* session, const RunOptions* options, const char* const* input_names,
                 const Value* const* inputs, size_t input_count, const char* const* output_names,
                 size_t output_count, Value** outputs);
  Status* (*CreateSessionOptions)(SessionOptions** options);
  Gap gap11[12];
  Status* (*SetSessionGraphOptimizationLevel)(SessionOptions* options, int level);
  Status* (*SetIntraOpNumThreads)(SessionOptions* options, int threads);
  Gap gap25[24];
  Status* (*CreateTensorWithDataAsOrtValue)(const MemoryInfo* memory, void* data, size_t bytes,
                                            const int64_t* shape, size_t rank, int type,
                                            Value** value);
  Gap gap50[1];
  Status* (*GetTensorMutableData)(Value* value, void** data);
  Gap gap52[17];
  Status* (*CreateCpuMemoryInfo)(int allocator, int memory_type, MemoryInfo** memory);
  Gap gap70[23];
  void (*ReleaseStatus)(Status* status);
  void (*ReleaseMemoryInfo)(MemoryInfo* memory);
  void (*ReleaseSession)(Session* session);
  void (*ReleaseValue)(Value* value);
  Gap gap97[3];
  void (*ReleaseSessionOptions)(SessionOptions* options);
  Gap gap101[24];
  Status* (*GetAvailableProviders)(char*** names, int* count);
  Status* (*ReleaseAvailableProviders)(char** names, int count);
  Gap gap127[77];
  Status* (*SessionOptionsAppendExecutionProviderCuda)(SessionOptions* options,
                                                       const CudaOptions* cuda);
  Status* (*CreateCudaProviderOptions)(CudaOptions** cuda);
  Status* (*UpdateCudaProviderOptions)(CudaOptions* cuda, const char* const* keys,
                                       const char* const* values, size_t count);
  Gap gap207[1];
  void (*ReleaseCudaProviderOptions)(CudaOptions* cuda);
};
static_assert(offsetof(Api, Run) == 9 * sizeof(Gap), "a gap is wrong");
static_assert(offsetof(Api, SetIntraOpNumThreads) == 24 * sizeof(Gap), "a gap is wrong");
static_assert(offsetof(Api, GetTensorMutableData) == 51 * sizeof(Gap), "a gap is wrong");
static_assert(offsetof(Api, CreateCpuMemoryInfo) == 69 * sizeof(Gap), "a gap is wrong");
static_assert(offsetof(Api, ReleaseSessionOptions) == 100 * sizeof(Gap), "a gap is wrong");
static_assert(offsetof(Api, GetAvailableProviders) == 125 * sizeof(Gap), "a gap is wrong");
static_assert(offsetof(Api, ReleaseCudaProviderOptions) == 208 * sizeof(Gap), "a gap is wrong");

// What the library's only exported function, OrtGetApiBase, gives.
struct ApiBase {
  const Api* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

}  // namespace mstpp::ort
