// The part of ONNX Runtime's C API that onnxruntime_runner.cc calls, declared here because the wheels of onnxruntime
// carry the library and no headers.
//
// Source: include/onnxruntime/core/session/onnxruntime_c_api.h of https://github.com/microsoft/onnxruntime (MIT License).
// OrtApi is a table of function pointers that only ever grows at its end, so that the order of its members is the
// interface. It is given whole up to the last member that is called; `SKIP(Name)` stands for a member that is not.
#ifndef EDGEKIT_ONNXRUNTIME_C_API_SUBSET_H
#define EDGEKIT_ONNXRUNTIME_C_API_SUBSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ORT_API_VERSION 23 /* the first with AllocatorGetStats */

#ifdef __cplusplus
extern "C" {
#endif

typedef struct OrtEnv OrtEnv;
typedef struct OrtStatus OrtStatus; /* NULL: success */
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtIoBinding OrtIoBinding;
typedef struct OrtSession OrtSession;
typedef struct OrtValue OrtValue;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtKeyValuePairs OrtKeyValuePairs;

enum { ORT_LOGGING_LEVEL_ERROR = 3 };
enum { ORT_SEQUENTIAL = 0 };
enum { OrtDeviceAllocator = 0, OrtArenaAllocator = 1 };
enum { OrtMemTypeDefault = 0 };
enum { ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING = 8 };

typedef void (*OrtUnused)(void);
#define SKIP(name) OrtUnused name;

typedef struct OrtApi {
    SKIP(CreateStatus) SKIP(GetErrorCode)
    const char* (*GetErrorMessage)(const OrtStatus*);
    OrtStatus* (*CreateEnv)(int severity, const char* name, OrtEnv** out);
    SKIP(CreateEnvWithCustomLogger) SKIP(EnableTelemetryEvents) SKIP(DisableTelemetryEvents)
    OrtStatus* (*CreateSession)(const OrtEnv*, const char* path, const OrtSessionOptions*, OrtSession** out);
    SKIP(CreateSessionFromArray) SKIP(Run)
    OrtStatus* (*CreateSessionOptions)(OrtSessionOptions** out);
    SKIP(SetOptimizedModelFilePath) SKIP(CloneSessionOptions)
    OrtStatus* (*SetSessionExecutionMode)(OrtSessionOptions*, int mode);
    OrtStatus* (*EnableProfiling)(OrtSessionOptions*, const char* file_prefix);
    SKIP(DisableProfiling) SKIP(EnableMemPattern) SKIP(DisableMemPattern) SKIP(EnableCpuMemArena)
    SKIP(DisableCpuMemArena) SKIP(SetSessionLogId) SKIP(SetSessionLogVerbosityLevel)
    OrtStatus* (*SetSessionLogSeverityLevel)(OrtSessionOptions*, int severity);
    SKIP(SetSessionGraphOptimizationLevel)
    OrtStatus* (*SetIntraOpNumThreads)(OrtSessionOptions*, int count);
    OrtStatus* (*SetInterOpNumThreads)(OrtSessionOptions*, int count);
    SKIP(CreateCustomOpDomain) SKIP(CustomOpDomain_Add) SKIP(AddCustomOpDomain) SKIP(RegisterCustomOpsLibrary)
    OrtStatus* (*SessionGetInputCount)(const OrtSession*, size_t* out);
    OrtStatus* (*SessionGetOutputCount)(const OrtSession*, size_t* out);
    SKIP(SessionGetOverridableInitializerCount)
    OrtStatus* (*SessionGetInputTypeInfo)(const OrtSession*, size_t index, OrtTypeInfo** out);
    OrtStatus* (*SessionGetOutputTypeInfo)(const OrtSession*, size_t index, OrtTypeInfo** out);
    SKIP(SessionGetOverridableInitializerTypeInfo)
    OrtStatus* (*SessionGetInputName)(const OrtSession*, size_t index, OrtAllocator*, char** out);
    OrtStatus* (*SessionGetOutputName)(const OrtSession*, size_t index, OrtAllocator*, char** out);
    SKIP(SessionGetOverridableInitializerName)
    OrtStatus* (*CreateRunOptions)(OrtRunOptions** out);
    SKIP(RunOptionsSetRunLogVerbosityLevel) SKIP(RunOptionsSetRunLogSeverityLevel) SKIP(RunOptionsSetRunTag)
    SKIP(RunOptionsGetRunLogVerbosityLevel) SKIP(RunOptionsGetRunLogSeverityLevel) SKIP(RunOptionsGetRunTag)
    SKIP(RunOptionsSetTerminate) SKIP(RunOptionsUnsetTerminate) SKIP(CreateTensorAsOrtValue)
    OrtStatus* (*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo*, void* data, size_t bytes, const int64_t* shape,
                                                 size_t rank, int element_type, OrtValue** out);
    OrtStatus* (*IsTensor)(const OrtValue*, int* out);
    OrtStatus* (*GetTensorMutableData)(OrtValue*, void** out);
    SKIP(FillStringTensor) SKIP(GetStringTensorDataLength) SKIP(GetStringTensorContent)
    OrtStatus* (*CastTypeInfoToTensorInfo)(const OrtTypeInfo*, const OrtTensorTypeAndShapeInfo** out);
    SKIP(GetOnnxTypeFromTypeInfo) SKIP(CreateTensorTypeAndShapeInfo) SKIP(SetTensorElementType) SKIP(SetDimensions)
    OrtStatus* (*GetTensorElementType)(const OrtTensorTypeAndShapeInfo*, int* out);
    OrtStatus* (*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo*, size_t* out);
    OrtStatus* (*GetDimensions)(const OrtTensorTypeAndShapeInfo*, int64_t* sizes, size_t rank);
    SKIP(GetSymbolicDimensions) SKIP(GetTensorShapeElementCount)
    OrtStatus* (*GetTensorTypeAndShape)(const OrtValue*, OrtTensorTypeAndShapeInfo** out);
    SKIP(GetTypeInfo) SKIP(GetValueType) SKIP(CreateMemoryInfo)
    OrtStatus* (*CreateCpuMemoryInfo)(int allocator_type, int memory_type, OrtMemoryInfo** out);
    SKIP(CompareMemoryInfo) SKIP(MemoryInfoGetName) SKIP(MemoryInfoGetId) SKIP(MemoryInfoGetMemType)
    SKIP(MemoryInfoGetType) SKIP(AllocatorAlloc)
    OrtStatus* (*AllocatorFree)(OrtAllocator*, void* address);
    SKIP(AllocatorGetInfo)
    OrtStatus* (*GetAllocatorWithDefaultOptions)(OrtAllocator** out);
    SKIP(AddFreeDimensionOverride) SKIP(GetValue) SKIP(GetValueCount) SKIP(CreateValue) SKIP(CreateOpaqueValue)
    SKIP(GetOpaqueValue) SKIP(KernelInfoGetAttribute_float) SKIP(KernelInfoGetAttribute_int64)
    SKIP(KernelInfoGetAttribute_string) SKIP(KernelContext_GetInputCount) SKIP(KernelContext_GetOutputCount)
    SKIP(KernelContext_GetInput) SKIP(KernelContext_GetOutput)
    void (*ReleaseEnv)(OrtEnv*);
    void (*ReleaseStatus)(OrtStatus*);
    void (*ReleaseMemoryInfo)(OrtMemoryInfo*);
    void (*ReleaseSession)(OrtSession*);
    void (*ReleaseValue)(OrtValue*);
    void (*ReleaseRunOptions)(OrtRunOptions*);
    void (*ReleaseTypeInfo)(OrtTypeInfo*);
    void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo*);
    void (*ReleaseSessionOptions)(OrtSessionOptions*);
    SKIP(ReleaseCustomOpDomain) SKIP(GetDenotationFromTypeInfo) SKIP(CastTypeInfoToMapTypeInfo)
    SKIP(CastTypeInfoToSequenceTypeInfo) SKIP(GetMapKeyType) SKIP(GetMapValueType) SKIP(GetSequenceElementType)
    SKIP(ReleaseMapTypeInfo) SKIP(ReleaseSequenceTypeInfo)
    OrtStatus* (*SessionEndProfiling)(OrtSession*, OrtAllocator*, char** out);
    SKIP(SessionGetModelMetadata) SKIP(ModelMetadataGetProducerName) SKIP(ModelMetadataGetGraphName)
    SKIP(ModelMetadataGetDomain) SKIP(ModelMetadataGetDescription) SKIP(ModelMetadataLookupCustomMetadataMap)
    SKIP(ModelMetadataGetVersion) SKIP(ReleaseModelMetadata) SKIP(CreateEnvWithGlobalThreadPools)
    SKIP(DisablePerSessionThreads) SKIP(CreateThreadingOptions) SKIP(ReleaseThreadingOptions)
    SKIP(ModelMetadataGetCustomMetadataMapKeys) SKIP(AddFreeDimensionOverrideByName) SKIP(GetAvailableProviders)
    SKIP(ReleaseAvailableProviders) SKIP(GetStringTensorElementLength) SKIP(GetStringTensorElement)
    SKIP(FillStringTensorElement) SKIP(AddSessionConfigEntry)
    OrtStatus* (*CreateAllocator)(const OrtSession*, const OrtMemoryInfo*, OrtAllocator** out);
    void (*ReleaseAllocator)(OrtAllocator*);
    OrtStatus* (*RunWithBinding)(OrtSession*, const OrtRunOptions*, const OrtIoBinding*);
    OrtStatus* (*CreateIoBinding)(OrtSession*, OrtIoBinding** out);
    void (*ReleaseIoBinding)(OrtIoBinding*);
    OrtStatus* (*BindInput)(OrtIoBinding*, const char* name, const OrtValue*);
    SKIP(BindOutput)
    OrtStatus* (*BindOutputToDevice)(OrtIoBinding*, const char* name, const OrtMemoryInfo*);
    SKIP(GetBoundOutputNames)
    OrtStatus* (*GetBoundOutputValues)(const OrtIoBinding*, OrtAllocator*, OrtValue*** out, size_t* count);
    SKIP(ClearBoundInputs) SKIP(ClearBoundOutputs) SKIP(TensorAt) SKIP(CreateAndRegisterAllocator)
    SKIP(SetLanguageProjection) SKIP(SessionGetProfilingStartTimeNs) SKIP(SetGlobalIntraOpNumThreads)
    SKIP(SetGlobalInterOpNumThreads) SKIP(SetGlobalSpinControl) SKIP(AddInitializer)
    SKIP(CreateEnvWithCustomLoggerAndGlobalThreadPools) SKIP(SessionOptionsAppendExecutionProvider_CUDA)
    SKIP(SessionOptionsAppendExecutionProvider_ROCM) SKIP(SessionOptionsAppendExecutionProvider_OpenVINO)
    SKIP(SetGlobalDenormalAsZero) SKIP(CreateArenaCfg) SKIP(ReleaseArenaCfg) SKIP(ModelMetadataGetGraphDescription)
    SKIP(SessionOptionsAppendExecutionProvider_TensorRT) SKIP(SetCurrentGpuDeviceId) SKIP(GetCurrentGpuDeviceId)
    SKIP(KernelInfoGetAttributeArray_float) SKIP(KernelInfoGetAttributeArray_int64) SKIP(CreateArenaCfgV2)
    SKIP(AddRunConfigEntry) SKIP(CreatePrepackedWeightsContainer) SKIP(ReleasePrepackedWeightsContainer)
    SKIP(CreateSessionWithPrepackedWeightsContainer) SKIP(CreateSessionFromArrayWithPrepackedWeightsContainer)
    SKIP(SessionOptionsAppendExecutionProvider_TensorRT_V2) SKIP(CreateTensorRTProviderOptions)
    SKIP(UpdateTensorRTProviderOptions) SKIP(GetTensorRTProviderOptionsAsString) SKIP(ReleaseTensorRTProviderOptions)
    SKIP(EnableOrtCustomOps) SKIP(RegisterAllocator) SKIP(UnregisterAllocator) SKIP(IsSparseTensor)
    SKIP(CreateSparseTensorAsOrtValue) SKIP(FillSparseTensorCoo) SKIP(FillSparseTensorCsr)
    SKIP(FillSparseTensorBlockSparse) SKIP(CreateSparseTensorWithValuesAsOrtValue) SKIP(UseCooIndices)
    SKIP(UseCsrIndices) SKIP(UseBlockSparseIndices) SKIP(GetSparseTensorFormat)
    SKIP(GetSparseTensorValuesTypeAndShape) SKIP(GetSparseTensorValues) SKIP(GetSparseTensorIndicesTypeShape)
    SKIP(GetSparseTensorIndices) SKIP(HasValue) SKIP(KernelContext_GetGPUComputeStream) SKIP(GetTensorMemoryInfo)
    SKIP(GetExecutionProviderApi) SKIP(SessionOptionsSetCustomCreateThreadFn)
    SKIP(SessionOptionsSetCustomThreadCreationOptions) SKIP(SessionOptionsSetCustomJoinThreadFn)
    SKIP(SetGlobalCustomCreateThreadFn) SKIP(SetGlobalCustomThreadCreationOptions) SKIP(SetGlobalCustomJoinThreadFn)
    SKIP(SynchronizeBoundInputs) SKIP(SynchronizeBoundOutputs) SKIP(SessionOptionsAppendExecutionProvider_CUDA_V2)
    SKIP(CreateCUDAProviderOptions) SKIP(UpdateCUDAProviderOptions) SKIP(GetCUDAProviderOptionsAsString)
    SKIP(ReleaseCUDAProviderOptions) SKIP(SessionOptionsAppendExecutionProvider_MIGraphX)
    SKIP(AddExternalInitializers) SKIP(CreateOpAttr) SKIP(ReleaseOpAttr) SKIP(CreateOp) SKIP(InvokeOp)
    SKIP(ReleaseOp) SKIP(SessionOptionsAppendExecutionProvider) SKIP(CopyKernelInfo) SKIP(ReleaseKernelInfo)
    SKIP(GetTrainingApi) SKIP(SessionOptionsAppendExecutionProvider_CANN) SKIP(CreateCANNProviderOptions)
    SKIP(UpdateCANNProviderOptions) SKIP(GetCANNProviderOptionsAsString) SKIP(ReleaseCANNProviderOptions)
    SKIP(MemoryInfoGetDeviceType) SKIP(UpdateEnvWithCustomLogLevel) SKIP(SetGlobalIntraOpThreadAffinity)
    SKIP(RegisterCustomOpsLibrary_V2) SKIP(RegisterCustomOpsUsingFunction) SKIP(KernelInfo_GetInputCount)
    SKIP(KernelInfo_GetOutputCount) SKIP(KernelInfo_GetInputName) SKIP(KernelInfo_GetOutputName)
    SKIP(KernelInfo_GetInputTypeInfo) SKIP(KernelInfo_GetOutputTypeInfo) SKIP(KernelInfoGetAttribute_tensor)
    SKIP(HasSessionConfigEntry) SKIP(GetSessionConfigEntry) SKIP(SessionOptionsAppendExecutionProvider_Dnnl)
    SKIP(CreateDnnlProviderOptions) SKIP(UpdateDnnlProviderOptions) SKIP(GetDnnlProviderOptionsAsString)
    SKIP(ReleaseDnnlProviderOptions) SKIP(KernelInfo_GetNodeName) SKIP(KernelInfo_GetLogger)
    SKIP(KernelContext_GetLogger) SKIP(Logger_LogMessage) SKIP(Logger_GetLoggingSeverityLevel)
    SKIP(KernelInfoGetConstantInput_tensor) SKIP(CastTypeInfoToOptionalTypeInfo) SKIP(GetOptionalContainedTypeInfo)
    SKIP(GetResizedStringTensorElementBuffer) SKIP(KernelContext_GetAllocator) SKIP(GetBuildInfoString)
    SKIP(CreateROCMProviderOptions) SKIP(UpdateROCMProviderOptions) SKIP(GetROCMProviderOptionsAsString)
    SKIP(ReleaseROCMProviderOptions) SKIP(CreateAndRegisterAllocatorV2) SKIP(RunAsync)
    SKIP(UpdateTensorRTProviderOptionsWithValue) SKIP(GetTensorRTProviderOptionsByName)
    SKIP(UpdateCUDAProviderOptionsWithValue) SKIP(GetCUDAProviderOptionsByName) SKIP(KernelContext_GetResource)
    SKIP(SetUserLoggingFunction) SKIP(ShapeInferContext_GetInputCount) SKIP(ShapeInferContext_GetInputTypeShape)
    SKIP(ShapeInferContext_GetAttribute) SKIP(ShapeInferContext_SetOutputTypeShape) SKIP(SetSymbolicDimensions)
    SKIP(ReadOpAttr)
    OrtStatus* (*SetDeterministicCompute)(OrtSessionOptions*, bool on);
    SKIP(KernelContext_ParallelFor) SKIP(SessionOptionsAppendExecutionProvider_OpenVINO_V2)
    SKIP(SessionOptionsAppendExecutionProvider_VitisAI) SKIP(KernelContext_GetScratchBuffer)
    SKIP(KernelInfoGetAllocator) SKIP(AddExternalInitializersFromFilesInMemory) SKIP(CreateLoraAdapter)
    SKIP(CreateLoraAdapterFromArray) SKIP(ReleaseLoraAdapter) SKIP(RunOptionsAddActiveLoraAdapter)
    SKIP(SetEpDynamicOptions) SKIP(ReleaseValueInfo) SKIP(ReleaseNode) SKIP(ReleaseGraph) SKIP(ReleaseModel)
    SKIP(GetValueInfoName) SKIP(GetValueInfoTypeInfo) SKIP(GetModelEditorApi)
    SKIP(CreateTensorWithDataAndDeleterAsOrtValue) SKIP(SessionOptionsSetLoadCancellationFlag) SKIP(GetCompileApi)
    SKIP(CreateKeyValuePairs) SKIP(AddKeyValuePair)
    const char* (*GetKeyValue)(const OrtKeyValuePairs*, const char* key);
    SKIP(GetKeyValuePairs) SKIP(RemoveKeyValuePair)
    void (*ReleaseKeyValuePairs)(OrtKeyValuePairs*);
    SKIP(RegisterExecutionProviderLibrary) SKIP(UnregisterExecutionProviderLibrary) SKIP(GetEpDevices)
    SKIP(SessionOptionsAppendExecutionProvider_V2) SKIP(SessionOptionsSetEpSelectionPolicy)
    SKIP(SessionOptionsSetEpSelectionPolicyDelegate) SKIP(HardwareDevice_Type) SKIP(HardwareDevice_VendorId)
    SKIP(HardwareDevice_Vendor) SKIP(HardwareDevice_DeviceId) SKIP(HardwareDevice_Metadata) SKIP(EpDevice_EpName)
    SKIP(EpDevice_EpVendor) SKIP(EpDevice_EpMetadata) SKIP(EpDevice_EpOptions) SKIP(EpDevice_Device) SKIP(GetEpApi)
    SKIP(GetTensorSizeInBytes)
    OrtStatus* (*AllocatorGetStats)(const OrtAllocator*, OrtKeyValuePairs** out);
} OrtApi;

#undef SKIP

typedef struct OrtApiBase {
    const OrtApi* (*GetApi)(uint32_t version); /* NULL: the library is older than this version */
    const char* (*GetVersionString)(void);
} OrtApiBase;

const OrtApiBase* OrtGetApiBase(void);

#ifdef __cplusplus
}

// The places that the library itself pins, one for each of its versions (onnxruntime_c_api.cc).
#define EDGEKIT_ORT_AT(name, place) static_assert(offsetof(OrtApi, name) == (place) * sizeof(void*), "place in OrtApi")
EDGEKIT_ORT_AT(ReleaseCustomOpDomain, 101);
EDGEKIT_ORT_AT(ReleaseModelMetadata, 118);
EDGEKIT_ORT_AT(AddFreeDimensionOverrideByName, 124);
EDGEKIT_ORT_AT(ReleaseAvailableProviders, 126);
EDGEKIT_ORT_AT(SetGlobalSpinControl, 149);
EDGEKIT_ORT_AT(ReleaseArenaCfg, 157);
EDGEKIT_ORT_AT(GetCurrentGpuDeviceId, 161);
EDGEKIT_ORT_AT(CreateSessionFromArrayWithPrepackedWeightsContainer, 169);
EDGEKIT_ORT_AT(GetSparseTensorIndices, 191);
EDGEKIT_ORT_AT(SynchronizeBoundOutputs, 203);
EDGEKIT_ORT_AT(SessionOptionsAppendExecutionProvider_MIGraphX, 209);
EDGEKIT_ORT_AT(ReleaseKernelInfo, 218);
EDGEKIT_ORT_AT(ReleaseCANNProviderOptions, 224);
EDGEKIT_ORT_AT(GetSessionConfigEntry, 238);
EDGEKIT_ORT_AT(GetBuildInfoString, 254);
EDGEKIT_ORT_AT(KernelContext_GetResource, 265);
#undef EDGEKIT_ORT_AT
#endif

#endif
