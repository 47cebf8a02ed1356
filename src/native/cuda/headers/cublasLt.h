// Stands in for cuBLASLt's header of this name; see cublas_v2.h.
#pragma once

typedef struct cublasLtContext* cublasLtHandle_t;
