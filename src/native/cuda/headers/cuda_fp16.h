// Stands in for CUDA's header of this name, which libtorch's ATenCUDAGeneral.h includes and uses nothing of: the true one
// needs another wheel (nv/target).
#pragma once
