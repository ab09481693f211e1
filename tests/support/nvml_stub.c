/*
 * A stand-in for libnvidia-ml.so.1: the functions that the agent's child calls, driven by a file of lines
 *
 *     key=value
 *
 * which NVML_STUB names and which is mapped, so that a test changes the driver under a running process.
 * A key may end in `.N` for one GPU alone. The keys:
 *
 *     fail.FUNCTION=CODE   it returns this code          fail.gpu=CODE   so does every function of a GPU
 *     hang.FUNCTION=1      it never returns              crash.FUNCTION=1   it takes the process down
 *     print.FUNCTION=1     it prints to standard output  anything else: the figure of that name, below
 *
 * Layouts: NVML API reference.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define STATE_BYTES 8192
#define SUCCESS 0
#define INVALID_ARGUMENT 2
#define INSUFFICIENT_SIZE 7
#define TIMEOUT 10
#define XID_EVENT 8

typedef unsigned long long u64;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned environment, feature, devtools; } ConfComputeState;
typedef struct { unsigned pid; u64 memory; unsigned gpu_instance, compute_instance; } Process;
typedef struct { void *device; u64 type, data; unsigned gpu_instance, compute_instance; } Event;

static const char *state = "";
static u64 xids_told;
static u64 events_of; /* a bit for each GPU that is registered */

__attribute__((constructor)) static void map_state(void)
{
    const char *path = getenv("NVML_STUB");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(NULL, STATE_BYTES, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        state = mapped;
}

/* The text after `key=` or `key.gpu=` at the start of a line, or NULL. */
static const char *find(const char *key, int gpu)
{
    char wanted[128];
    for (int alone = gpu >= 0; alone >= 0; alone--) {
        size_t length = alone ? (size_t)snprintf(wanted, sizeof wanted, "%s.%d=", key, gpu)
                              : (size_t)snprintf(wanted, sizeof wanted, "%s=", key);
        for (const char *line = state; line && *line; line = strchr(line, '\n')) {
            line += *line == '\n';
            if (strncmp(line, wanted, length) == 0)
                return line + length;
        }
    }
    return NULL;
}

static u64 number(const char *key, int gpu, u64 otherwise)
{
    const char *text = find(key, gpu);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

static int words(const char *key, int gpu, const char *otherwise, char *out, unsigned size)
{
    const char *text = find(key, gpu);
    size_t length = text ? strcspn(text, "\n") : strlen(otherwise);
    if (length >= size)
        return INSUFFICIENT_SIZE;
    memcpy(out, text ? text : otherwise, length);
    out[length] = 0;
    return SUCCESS;
}

static int gpu_of(void *device) { return (int)(size_t)device - 1; }

static int gate(const char *function, int gpu)
{
    char key[128];
    snprintf(key, sizeof key, "hang.%s", function);
    while (number(key, gpu, 0))
        pause();
    snprintf(key, sizeof key, "crash.%s", function);
    if (number(key, gpu, 0))
        abort();
    snprintf(key, sizeof key, "print.%s", function);
    if (number(key, gpu, 0)) {
        puts("NVRM: something of interest to nobody");
        fflush(stdout);
    }
    if (gpu >= 0 && number("fail.gpu", gpu, SUCCESS))
        return (int)number("fail.gpu", gpu, SUCCESS);
    snprintf(key, sizeof key, "fail.%s", function);
    return (int)number(key, gpu, SUCCESS);
}

#define ENTER(gpu)                             \
    do {                                       \
        int refused = gate(__func__, gpu);     \
        if (refused)                           \
            return refused;                    \
    } while (0)

#define FIGURE(function, type, key, otherwise)                  \
    int function(void *device, type *out)                       \
    {                                                           \
        ENTER(gpu_of(device));                                  \
        *out = (type)number(key, gpu_of(device), otherwise);    \
        return SUCCESS;                                         \
    }

int nvmlInitWithFlags(unsigned flags) { (void)flags; ENTER(-1); return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { (void)code; return "an error of the stub"; }

int nvmlSystemGetDriverVersion(char *out, unsigned size)
{
    ENTER(-1);
    return words("driver", -1, "550.90.07", out, size);
}

int nvmlSystemGetConfComputeState(ConfComputeState *out)
{
    ENTER(-1);
    out->environment = (unsigned)number("environment", -1, 2);
    out->feature = (unsigned)number("confidential", -1, 0);
    out->devtools = (unsigned)number("devtools", -1, 0);
    return SUCCESS;
}

int nvmlSystemGetConfComputeGpusReadyState(unsigned *out)
{
    ENTER(-1);
    *out = (unsigned)number("ready", -1, 1);
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *out) { ENTER(-1); *out = (unsigned)number("gpus", -1, 1); return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out)
{
    ENTER((int)index);
    *out = (void *)(size_t)(index + 1);
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *device, char *out, unsigned size)
{
    ENTER(gpu_of(device));
    char otherwise[64];
    snprintf(otherwise, sizeof otherwise, "GPU-%08d-0000-0000-0000-000000000000", gpu_of(device));
    return words("uuid", gpu_of(device), otherwise, out, size);
}

int nvmlDeviceGetName(void *device, char *out, unsigned size)
{
    ENTER(gpu_of(device));
    return words("name", gpu_of(device), "NVIDIA H100 80GB HBM3", out, size);
}

int nvmlDeviceGetUtilizationRates(void *device, Utilization *out)
{
    ENTER(gpu_of(device));
    out->gpu = (unsigned)number("busy_percent", gpu_of(device), 50);
    out->memory = (unsigned)number("memory_busy_percent", gpu_of(device), 20);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, Memory *out)
{
    ENTER(gpu_of(device));
    out->total = number("memory_total", gpu_of(device), 80ULL << 30);
    out->used = number("memory_used", gpu_of(device), 60ULL << 30);
    out->free = out->total - out->used;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending)
{
    ENTER(gpu_of(device));
    *current = *pending = (unsigned)number("mig", gpu_of(device), 0);
    return SUCCESS;
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *out)
{
    (void)sensor;
    ENTER(gpu_of(device));
    *out = (unsigned)number("temperature", gpu_of(device), 61);
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(void *device, int error, int counter, u64 *out)
{
    ENTER(gpu_of(device));
    if (error != 1)
        return INVALID_ARGUMENT;
    *out = number(counter ? "ecc_aggregate" : "ecc_volatile", gpu_of(device), 0);
    return SUCCESS;
}

int nvmlDeviceGetRemappedRows(void *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed)
{
    ENTER(gpu_of(device));
    *corrected = (unsigned)number("rows_corrected", gpu_of(device), 0);
    *uncorrected = (unsigned)number("rows_uncorrected", gpu_of(device), 0);
    *pending = (unsigned)number("remap_pending", gpu_of(device), 0);
    *failed = (unsigned)number("remap_failed", gpu_of(device), 0);
    return SUCCESS;
}

int nvmlDeviceGetRetiredPages(void *device, int cause, unsigned *count, u64 *pages)
{
    ENTER(gpu_of(device));
    unsigned there = (unsigned)number(cause ? "pages_double" : "pages_single", gpu_of(device), 0);
    if (pages == NULL || *count < there) {
        *count = there;
        return there ? INSUFFICIENT_SIZE : SUCCESS;
    }
    for (unsigned page = 0; page < there; page++)
        pages[page] = page << 12;
    *count = there;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, Process *out)
{
    ENTER(gpu_of(device));
    unsigned there = (unsigned)number("processes", gpu_of(device), 1);
    if (out == NULL || *count < there) {
        *count = there;
        return there ? INSUFFICIENT_SIZE : SUCCESS;
    }
    for (unsigned process = 0; process < there; process++)
        out[process] = (Process){1000 + process, number("process_memory", gpu_of(device), 59ULL << 30), ~0U, ~0U};
    *count = there;
    return SUCCESS;
}

int nvmlEventSetCreate(void **out) { ENTER(-1); *out = &xids_told; return SUCCESS; }

int nvmlDeviceRegisterEvents(void *device, u64 types, void *set)
{
    (void)set;
    ENTER(gpu_of(device));
    if (types != XID_EVENT)
        return INVALID_ARGUMENT;
    events_of |= 1ULL << gpu_of(device);
    return SUCCESS;
}

/* `xids=N` are the first N Xids that ever were, codes `xid_code` and up: those not told to this process yet wait. */
int nvmlEventSetWait_v2(void *set, Event *out, unsigned timeout_ms)
{
    (void)set, (void)timeout_ms;
    ENTER(-1);
    u64 gpu = number("xid_gpu", -1, 0);
    if (xids_told >= number("xids", -1, 0) || !(events_of >> gpu & 1))
        return TIMEOUT;
    *out = (Event){(void *)(size_t)(gpu + 1), XID_EVENT, number("xid_code", -1, 79) + xids_told, ~0U, ~0U};
    xids_told++;
    return SUCCESS;
}

FIGURE(nvmlDeviceGetTotalEnergyConsumption, u64, "energy", 1000)
FIGURE(nvmlDeviceGetPowerUsage, unsigned, "power", 412000)
FIGURE(nvmlDeviceGetCurrentClocksEventReasons, u64, "clock_limits", 0)
FIGURE(nvmlDeviceGetCurrentClocksThrottleReasons, u64, "clock_limits", 0)
FIGURE(nvmlDeviceGetRetiredPagesPendingStatus, unsigned, "retirement_pending", 0)
FIGURE(nvmlDeviceGetSupportedEventTypes, u64, "event_types", XID_EVENT)
