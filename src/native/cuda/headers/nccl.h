// Stands in for NCCL's header of this name: what libtorch 2.11's ProcessGroupNCCL.hpp needs of NCCL 2.28.9, the version
// that libtorch is built with. The layout of its classes follows from the version and from the types below, so both
// have to be NCCL's to the byte; tests/cuda_part.rs compares them with the true header where there is one.
#pragma once

#include <limits.h>
#include <stddef.h>

#define NCCL_MAJOR 2
#define NCCL_MINOR 28
#define NCCL_PATCH 9
// Up to 2.8 a digit for the minor version, two since.
#define NCCL_VERSION(major, minor, patch) \
  ((major) * ((major) > 2 || (minor) > 8 ? 10000 : 1000) + (minor) * 100 + (patch))
#define NCCL_VERSION_CODE NCCL_VERSION(NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH)

#define NCCL_SPLIT_NOCOLOR -1
#define NCCL_CONFIG_UNDEF_INT INT_MIN
// ProcessGroupNCCL.hpp asks only whether there is one.
#define NCCL_SIM_INFO_INITIALIZER {}

extern "C" {

typedef struct ncclComm* ncclComm_t;

typedef struct {
  char internal[128];
} ncclUniqueId;

typedef enum {
  ncclSuccess = 0,
  ncclRemoteError = 6,
  ncclInProgress = 7,
  ncclNumResults = 8,
} ncclResult_t;

typedef enum {
  ncclSum = 0,
  ncclMaxRedOp = INT_MAX,
} ncclRedOp_t;

typedef enum {
  ncclInt8 = 0,
  ncclUint8 = 1,
  ncclInt32 = 2,
  ncclInt64 = 4,
  ncclHalf = 6,
  ncclFloat = 7,
  ncclDouble = 8,
  ncclBfloat16 = 9,
  ncclFloat8e4m3 = 10,
  ncclFloat8e5m2 = 11,
} ncclDataType_t;

typedef struct {
  size_t size;
  unsigned int magic;
  unsigned int version;
  int blocking;
  int cgaClusterSize;
  int minCTAs;
  int maxCTAs;
  const char* netName;
  int splitShare;
  int trafficClass;
  const char* commName;
  int collnetEnable;
  int CTAPolicy;
  int shrinkShare;
  int nvlsCTAs;
  int nChannelsPerNetPeer;
  int nvlinkCentricSched;
} ncclConfig_t;

// A member's default in ProcessGroupNCCL::Options, whose constructor is libtorch's own: never evaluated here.
#define NCCL_CONFIG_INITIALIZER {}

ncclResult_t ncclGetVersion(int* version);
ncclResult_t ncclRedOpDestroy(ncclRedOp_t operation, ncclComm_t comm);

}  // extern "C"
