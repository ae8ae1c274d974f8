"""Dispatch stub: LiteRT's library -> a library by which LiteRT runs what the stub of MediaTek's SDK has compiled, as on an NPU.

What it computes is made up, but depends on every byte of every input: all values of its outputs are one number between -1/16 and
1/16, so that its pictures are a middle grey inside the mask. A launch with it is complete, and its pictures are called wrong.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path

_SOURCE = r"""
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef void *Handle;
enum { OK = 0, FAULT = 3, HOST_MEMORY = 1, READ = 0, WRITE = 1, MOST = 4096 };
int LiteRtCreateTensorBufferRequirements(int types, const int *type, size_t bytes, int strides, const uint32_t *stride,
                                         Handle *out);
int LiteRtLockTensorBuffer(Handle buffer, void **memory, int mode);
int LiteRtUnlockTensorBuffer(Handle buffer);
int LiteRtGetTensorBufferSize(Handle buffer, size_t *bytes);

typedef struct { int fd; const char *base; size_t offset, size; } Bytecode;
typedef struct { int32_t element; uint32_t rank : 7, strided : 1; int32_t dimensions[8]; uint32_t strides[8]; } Type;
typedef struct { Handle inputs[MOST], outputs[MOST]; int in, out; } Context;
static const char NETWORK[] = "a network of the stub";

static int initialize(const void *r, Handle e, Handle o) { return OK; }
static int text(const char **out) { *out = "stub"; return OK; }
static int capabilities(int *out) { *out = 1; return OK; }
static int device(const void *r, Handle o, Handle *out) { *out = (Handle)NETWORK; return OK; }
static int done(Handle h) { return OK; }
static int required(Handle c, int index, const Type *type, Handle *out) {
  size_t bytes = type->element == 7 ? 2 : type->element == 9 ? 1 : 4;
  for (unsigned i = 0; i < type->rank; ++i) bytes *= (size_t)type->dimensions[i];
  const int host = HOST_MEMORY;
  return LiteRtCreateTensorBufferRequirements(1, &host, bytes, 0, NULL, out);
}
static int compatible(int32_t version, Handle e, Handle o) { return OK; }
static int registered(Handle d, Handle buffer, uint64_t *out) { *out = (uint64_t)(uintptr_t)buffer; return OK; }
static int unregistered(Handle d, uint64_t buffer) { return OK; }
static int created(const void *r, Handle d, int kind, const Bytecode *code, const char *name, int in, int out, Handle *context) {
  if (in > MOST || out > MOST || !memmem(code->base + code->offset, code->size, NETWORK, sizeof NETWORK)) return FAULT;
  Context *c = calloc(1, sizeof *c);
  c->in = in;
  c->out = out;
  *context = c;
  return OK;
}
static int destroyed(Handle c) { free(c); return OK; }
static int scheduled(Handle c, const void *i) { return OK; }
static int set(Handle *at, Handle value) { *at = value; return OK; }
static int attach_input(Context *c, int i, uint64_t b) { return set(&c->inputs[i], (Handle)(uintptr_t)b); }
static int attach_output(Context *c, int i, uint64_t b) { return set(&c->outputs[i], (Handle)(uintptr_t)b); }
static int detach(Context *c, int i, uint64_t b) { return OK; }
static int invoke(Context *c) {
  uint32_t sum = 2166136261u;
  void *memory;
  size_t bytes;
  for (int i = 0; i < c->in; ++i) {
    if (LiteRtGetTensorBufferSize(c->inputs[i], &bytes) || LiteRtLockTensorBuffer(c->inputs[i], &memory, READ)) return FAULT;
    for (size_t b = 0; b < bytes; ++b) sum = (sum ^ ((unsigned char *)memory)[b]) * 16777619u;
    LiteRtUnlockTensorBuffer(c->inputs[i]);
  }
  for (int i = 0; i < c->out; ++i) {
    if (LiteRtGetTensorBufferSize(c->outputs[i], &bytes) || LiteRtLockTensorBuffer(c->outputs[i], &memory, WRITE)) return FAULT;
    for (size_t f = 0; f < bytes / 4; ++f) ((float *)memory)[f] = (float)(int32_t)sum / 2147483648.0f / 16;
    LiteRtUnlockTensorBuffer(c->outputs[i]);
  }
  return OK;
}
static void *interface[32] = {initialize, text, text, capabilities, device, done, required, required, registered, unregistered,
                              created, destroyed, scheduled, attach_input, attach_output, detach, detach, invoke,
                              [23] = compatible};
int LiteRtDispatchGetApi(struct { uint64_t header; int32_t version[3]; void *interfaces[4]; } *api) {
  memset(api, 0, sizeof *api);
  api->version[1] = VERSION;
  api->interfaces[0] = interface;
  return OK;
}
"""


def write_dispatch(path: Path, litert: Path, *, compiler: Sequence[str] = ("cc",), version: int = 1) -> Path:
    """Write the library, which looks up LiteRT's functions in the one that has opened it. LiteRT 2.3 takes version 1 alone."""
    options = ["-shared", "-fPIC", "-w", "-O1", "-D_GNU_SOURCE", f"-DVERSION={version}"]
    files = ["-x", "c", "-", "-x", "none", str(litert), "-o", str(path)]
    subprocess.run([*compiler, *options, *files], input=_SOURCE.encode(), check=True)
    return path
