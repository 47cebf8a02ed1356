// Stands in for cuBLAS's header of this name. libtorch's own headers include five headers of CUDA's mathematics
// (half a gigabyte of wheels) for the few names below and in the files beside this one, in declarations that this
// program calls none of. A handle is a pointer there and a status an enumeration, as here.
#pragma once

typedef struct cublasContext* cublasHandle_t;
typedef enum { CUBLAS_STATUS_SUCCESS = 0 } cublasStatus_t;
