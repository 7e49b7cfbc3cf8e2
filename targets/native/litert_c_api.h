// The part of LiteRT's C API that litert_runner.cc calls, declared here because the wheels of ai-edge-litert carry the
// library (libLiteRt.so) and no headers.
//
// Source: the headers litert/c/*.h of https://github.com/google-ai-edge/LiteRT (Apache License 2.0), checked by running
// against version 2.3.0. The functions are exported with C linkage and stable symbol versions (VERS_1.0). The layout of
// a profiler event is no stable interface: EDGEKIT_LITERT_EVENTS_OF names the version that it was checked with.
#ifndef EDGEKIT_LITERT_C_API_H
#define EDGEKIT_LITERT_C_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EDGEKIT_LITERT_EVENTS_OF "2.3."

#ifdef __cplusplus
extern "C" {
#endif

typedef int LiteRtStatus; /* 0: success */

typedef struct LiteRtEnvironmentT* LiteRtEnvironment;
typedef struct LiteRtModelT* LiteRtModel;
typedef struct LiteRtOptionsT* LiteRtOptions;
typedef struct LiteRtOpaqueOptionsT* LiteRtOpaqueOptions;
typedef struct LiteRtCompiledModelT* LiteRtCompiledModel;
typedef struct LiteRtSignatureT* LiteRtSignature;
typedef struct LiteRtSubgraphT* LiteRtSubgraph;
typedef struct LiteRtTensorT* LiteRtTensor;
typedef struct LiteRtOpT* LiteRtOp;
typedef struct LiteRtTensorBufferT* LiteRtTensorBuffer;
typedef struct LiteRtTensorBufferRequirementsT* LiteRtTensorBufferRequirements;
typedef struct LiteRtProfilerT* LiteRtProfiler;

enum { kLiteRtHwAcceleratorCpu = 1 };
enum { kLiteRtLockRead = 0, kLiteRtLockWrite = 1 };
enum { kLiteRtMaxRank = 8 };

/* Tags of environment options, and the one kind of value that they take here. */
enum { kLiteRtTagAutoRegisterAccelerators = 24, kLiteRtTagMinLoggerSeverity = 25 };
enum { kLiteRtAnyInt = 2 };
enum { kLiteRtSeverityWarning = 2 };

typedef struct {
    int32_t tag;
    struct {
        int32_t type;
        int64_t value; /* a union in the library; other kinds are not used here */
    } any;
} LiteRtEnvironmentOption;

typedef struct {
    uint32_t rank : 7;
    uint32_t has_strides : 1;
    int32_t dimensions[kLiteRtMaxRank]; /* below 0: free */
    uint32_t strides[kLiteRtMaxRank];
} LiteRtLayout;

typedef struct {
    int32_t element_type;
    LiteRtLayout layout;
} LiteRtRankedTensorType;

typedef enum {
    kLiteRtEventScope = 1,
    kLiteRtEventOperator = 2,
    kLiteRtEventDelegatedOperator = 8,
} LiteRtEventType;

typedef struct {
    const char* tag; /* owned by the profiler */
    int32_t event_type;
    uint64_t start_us;
    uint64_t elapsed_us;
    int64_t memory_begin[3];
    int64_t memory_end[3];
    uint64_t index; /* of the graph's node, or of the operation in the delegate's partition */
    uint64_t extra;
    int32_t source;
} LiteRtProfilerEvent;

#ifdef __cplusplus
static_assert(sizeof(LiteRtRankedTensorType) == 72, "the library's own size");
static_assert(sizeof(LiteRtEnvironmentOption) == 24, "the library's own size");
#endif

LiteRtStatus LiteRtCreateEnvironment(int num_options, const LiteRtEnvironmentOption* options,
                                     LiteRtEnvironment* environment);
void LiteRtDestroyEnvironment(LiteRtEnvironment environment);

LiteRtStatus LiteRtCreateModelFromFile(LiteRtEnvironment environment, const char* path, LiteRtModel* model);
void LiteRtDestroyModel(LiteRtModel model);
LiteRtStatus LiteRtGetModelSignature(LiteRtModel model, size_t index, LiteRtSignature* signature);
LiteRtStatus LiteRtGetSignatureSubgraph(LiteRtSignature signature, LiteRtSubgraph* subgraph);
LiteRtStatus LiteRtGetNumSignatureInputs(LiteRtSignature signature, size_t* count);
LiteRtStatus LiteRtGetNumSignatureOutputs(LiteRtSignature signature, size_t* count);
LiteRtStatus LiteRtGetSignatureInputTensorByIndex(LiteRtSignature signature, size_t index, LiteRtTensor* tensor);
LiteRtStatus LiteRtGetSignatureOutputTensorByIndex(LiteRtSignature signature, size_t index, LiteRtTensor* tensor);
LiteRtStatus LiteRtGetNumSubgraphInputs(LiteRtSubgraph subgraph, size_t* count);
LiteRtStatus LiteRtGetNumSubgraphOutputs(LiteRtSubgraph subgraph, size_t* count);
LiteRtStatus LiteRtGetSubgraphInput(LiteRtSubgraph subgraph, size_t index, LiteRtTensor* tensor);
LiteRtStatus LiteRtGetSubgraphOutput(LiteRtSubgraph subgraph, size_t index, LiteRtTensor* tensor);
LiteRtStatus LiteRtGetTensorName(LiteRtTensor tensor, const char** name);
LiteRtStatus LiteRtGetTensorIndex(LiteRtTensor tensor, uint32_t* index);
LiteRtStatus LiteRtGetRankedTensorType(LiteRtTensor tensor, LiteRtRankedTensorType* type);

LiteRtStatus LiteRtCreateOptions(LiteRtOptions* options);
void LiteRtDestroyOptions(LiteRtOptions options);
LiteRtStatus LiteRtSetOptionsHardwareAccelerators(LiteRtOptions options, int accelerators);
LiteRtStatus LiteRtCreateOpaqueOptions(const char* name, void* payload, void (*destroy_payload)(void*),
                                       LiteRtOpaqueOptions* options);
LiteRtStatus LiteRtAddOpaqueOptions(LiteRtOptions options, LiteRtOpaqueOptions opaque); /* takes ownership */

LiteRtStatus LiteRtCreateCompiledModel(LiteRtEnvironment environment, LiteRtModel model, LiteRtOptions options,
                                       LiteRtCompiledModel* compiled);
void LiteRtDestroyCompiledModel(LiteRtCompiledModel compiled);
LiteRtStatus LiteRtCompiledModelResizeInputTensor(LiteRtCompiledModel compiled, size_t signature, size_t input,
                                                  const int* sizes, size_t rank);
LiteRtStatus LiteRtGetCompiledModelOutputTensorLayouts(LiteRtCompiledModel compiled, size_t signature, size_t count,
                                                       LiteRtLayout* layouts, bool update_allocation);
LiteRtStatus LiteRtGetCompiledModelInputBufferRequirements(LiteRtCompiledModel compiled, size_t signature,
                                                           size_t input, LiteRtTensorBufferRequirements* needs);
LiteRtStatus LiteRtGetCompiledModelOutputBufferRequirements(LiteRtCompiledModel compiled, size_t signature,
                                                            size_t output, LiteRtTensorBufferRequirements* needs);
LiteRtStatus LiteRtRunCompiledModel(LiteRtCompiledModel compiled, size_t signature, size_t num_inputs,
                                    LiteRtTensorBuffer* inputs, size_t num_outputs, LiteRtTensorBuffer* outputs);

LiteRtStatus LiteRtCreateManagedTensorBufferFromRequirements(LiteRtEnvironment environment,
                                                             const LiteRtRankedTensorType* type,
                                                             LiteRtTensorBufferRequirements needs,
                                                             LiteRtTensorBuffer* buffer);
void LiteRtDestroyTensorBuffer(LiteRtTensorBuffer buffer);
LiteRtStatus LiteRtGetTensorBufferPackedSize(LiteRtTensorBuffer buffer, size_t* size);
LiteRtStatus LiteRtLockTensorBuffer(LiteRtTensorBuffer buffer, void** address, int mode);
LiteRtStatus LiteRtUnlockTensorBuffer(LiteRtTensorBuffer buffer);

LiteRtStatus LiteRtCompiledModelGetProfiler(LiteRtCompiledModel compiled, LiteRtProfiler* profiler);
LiteRtStatus LiteRtStartProfiler(LiteRtProfiler profiler);
LiteRtStatus LiteRtStopProfiler(LiteRtProfiler profiler);
LiteRtStatus LiteRtResetProfiler(LiteRtProfiler profiler);
LiteRtStatus LiteRtGetNumProfilerEvents(LiteRtProfiler profiler, int* count);
LiteRtStatus LiteRtGetProfilerEvents(LiteRtProfiler profiler, int count, LiteRtProfilerEvent* events);

#ifdef __cplusplus
}
#endif

#endif
