/*
 * ggml's side of compare.py: a layer of experts of the operators that llama.cpp's build_moe_ffn uses,
 * with weights in Q8_0, on one thread. It does less than the other sides: which experts run, and how
 * they are weighed, comes with the input. On ARM, llama.cpp would repack Q8_0, which this does not.
 *
 * Speaks as ../peer.rs does: a command a line, answered with `ok key=value ...`; what is wrong ends
 * the program.
 *
 *   load NAME HIDDEN INTER EXPERTS FC1 FC2   files of Q8_0 blocks, [experts, n, k]
 *   inputs NAME ROWS K X IDS WEIGHTS         raw files: f32, i32 [sets, rows, k], f32 [sets, rows, k]
 *   run NAME ROWS COUNT                      one set of inputs after the other
 *   total NAME ROWS                          the tenth percentile of the thread's CPU time
 *   output NAME ROWS SET FILE                runs once and writes the output, raw f32
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ggml-cpu.h"
#include "ggml.h"

enum { NAMES_MAX = 8, LINE_BYTES_MAX = 4096, ROWS_MAX = 64, RUNS_MAX = 1 << 20 };
/* A page: no buffer shares one. */
enum { ALIGNMENT = 4096, CONTEXT_BYTES = 1 << 20 };

struct workload {
    struct ggml_tensor *x, *ids, *weights, *y;
    struct ggml_cgraph *graph;
    struct ggml_cplan plan;
    char *all_x, *all_ids, *all_weights;
    size_t sets;
    long *times_ns;
    size_t runs;
};

struct model {
    char name[64];
    int hidden, inter, experts;
    struct ggml_context *context;
    struct ggml_tensor *fc1, *fc2;
    struct workload by_rows[ROWS_MAX + 1];
};

static struct model models[NAMES_MAX];

static void fail(const char *what, const char *which) {
    printf("error %s: %s\n", what, which);
    fflush(stdout);
    exit(1);
}

static void *buffer(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, ALIGNMENT, bytes + ALIGNMENT) != 0) fail("no memory", "buffer");
    return memset(memory, 0, bytes + ALIGNMENT);
}

static char *contents(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) fail("can't be read", path);
    *bytes = (size_t)ftell(file);
    rewind(file);
    char *memory = buffer(*bytes);
    if (fread(memory, 1, *bytes, file) != *bytes) fail("can't be read", path);
    fclose(file);
    return memory;
}

static struct model *find(const char *name) {
    for (int i = 0; i < NAMES_MAX; i++) {
        if (strcmp(models[i].name, name) == 0) return &models[i];
    }
    fail("no such model", name);
    return NULL;
}

static struct ggml_tensor *weights(struct model *model, const char *path, int k, int n) {
    struct ggml_tensor *tensor =
        ggml_new_tensor_3d(model->context, GGML_TYPE_Q8_0, k, n, model->experts);
    size_t bytes = 0;
    tensor->data = contents(path, &bytes);
    if (bytes != ggml_nbytes(tensor)) fail("wrong size", path);
    return tensor;
}

static struct ggml_tensor *input(struct model *model, enum ggml_type type, int a, int b, int c) {
    return ggml_new_tensor_3d(model->context, type, a, b, c);
}

/* y = sum over chosen experts of weight * (fc2 . swiglu(fc1 . x)). */
static void build(struct model *model, struct workload *load, int rows, int k) {
    struct ggml_context *context = model->context;
    load->x = input(model, GGML_TYPE_F32, model->hidden, 1, rows);
    load->ids = ggml_new_tensor_2d(context, GGML_TYPE_I32, k, rows);
    load->weights = input(model, GGML_TYPE_F32, 1, k, rows);
    struct ggml_tensor *inner = ggml_mul_mat_id(context, model->fc1, load->x, load->ids);
    inner = ggml_swiglu(context, inner);
    struct ggml_tensor *outer = ggml_mul_mat_id(context, model->fc2, inner, load->ids);
    outer = ggml_mul_inplace(context, outer, load->weights);
    for (int i = 0; i < k; i++) {
        struct ggml_tensor *one = ggml_view_2d(context, outer, model->hidden, rows, outer->nb[2],
                                               (size_t)i * outer->nb[1]);
        /* A view may not be added to in place: rows of the other experts lie in between. */
        load->y = i == 0   ? one
                  : i == 1 ? ggml_add(context, load->y, one)
                           : ggml_add_inplace(context, load->y, one);
    }
    load->graph = ggml_new_graph(context);
    ggml_build_forward_expand(load->graph, load->y);
    for (struct ggml_tensor *tensor = ggml_get_first_tensor(context); tensor;
         tensor = ggml_get_next_tensor(context, tensor)) {
        if (!tensor->data && !tensor->view_src) tensor->data = buffer(ggml_nbytes(tensor));
    }
    for (struct ggml_tensor *tensor = ggml_get_first_tensor(context); tensor;
         tensor = ggml_get_next_tensor(context, tensor)) {
        if (tensor->view_src) {
            tensor->data = (char *)tensor->view_src->data + tensor->view_offs;
        }
    }
    struct ggml_threadpool_params params = ggml_threadpool_params_default(1);
    load->plan = ggml_graph_plan(load->graph, 1, ggml_threadpool_new(&params));
    load->plan.work_data = buffer(load->plan.work_size);
}

static long cpu_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

static void run(struct workload *load, size_t set) {
    size_t x = ggml_nbytes(load->x), ids = ggml_nbytes(load->ids);
    size_t weight_bytes = ggml_nbytes(load->weights);
    memcpy(load->x->data, load->all_x + set * x, x);
    memcpy(load->ids->data, load->all_ids + set * ids, ids);
    memcpy(load->weights->data, load->all_weights + set * weight_bytes, weight_bytes);
    if (ggml_graph_compute(load->graph, &load->plan) != GGML_STATUS_SUCCESS) fail("run", "failed");
}

static int longer(const void *a, const void *b) {
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

static void answer(char *line) {
    char *words[8] = {0};
    int count = 0;
    for (char *word = strtok(line, " \n"); word && count < 8; word = strtok(NULL, " \n")) {
        words[count++] = word;
    }
    if (count == 7 && strcmp(words[0], "load") == 0) {
        struct model *model = find("");
        snprintf(model->name, sizeof model->name, "%s", words[1]);
        model->hidden = atoi(words[2]);
        model->inter = atoi(words[3]);
        model->experts = atoi(words[4]);
        struct ggml_init_params params = {.mem_size = CONTEXT_BYTES, .no_alloc = true};
        model->context = ggml_init(params);
        model->fc1 = weights(model, words[5], model->hidden, 2 * model->inter);
        model->fc2 = weights(model, words[6], model->inter, model->hidden);
        printf("ok\n");
        return;
    }
    if (count < 3) fail("not a command", count ? words[0] : "");
    struct model *model = find(words[1]);
    int rows = atoi(words[2]);
    if (rows < 1 || rows > ROWS_MAX) fail("rows", words[2]);
    struct workload *load = &model->by_rows[rows];
    if (count == 7 && strcmp(words[0], "inputs") == 0) {
        build(model, load, rows, atoi(words[3]));
        size_t bytes = 0;
        load->all_x = contents(words[4], &bytes);
        load->sets = bytes / ggml_nbytes(load->x);
        load->all_ids = contents(words[5], &bytes);
        load->all_weights = contents(words[6], &bytes);
        load->times_ns = buffer(RUNS_MAX * sizeof(long));
        load->runs = 0;
        printf("ok sets=%zu\n", load->sets);
    } else if (load->sets == 0) {
        fail("no inputs", words[2]);
    } else if (count == 4 && strcmp(words[0], "run") == 0) {
        for (int i = atoi(words[3]); i > 0 && load->runs < RUNS_MAX; i--) {
            long start = cpu_ns();
            run(load, load->runs % load->sets);
            load->times_ns[load->runs++] = cpu_ns() - start;
        }
        printf("ok\n");
    } else if (count == 3 && strcmp(words[0], "total") == 0) {
        qsort(load->times_ns, load->runs, sizeof(long), longer);
        printf("ok runs=%zu cpu_p10_ns=%ld\n", load->runs, load->times_ns[load->runs / 10]);
    } else if (count == 5 && strcmp(words[0], "output") == 0 &&
               strtoul(words[3], NULL, 10) < load->sets) {
        run(load, strtoul(words[3], NULL, 10));
        FILE *file = fopen(words[4], "wb");
        size_t bytes = ggml_nbytes(load->y);
        if (!file || fwrite(load->y->data, 1, bytes, file) != bytes) fail("write", words[4]);
        fclose(file);
        printf("ok\n");
    } else {
        fail("not a command", words[0]);
    }
}

int main(void) {
    static char line[LINE_BYTES_MAX];
    ggml_cpu_init();
    while (fgets(line, sizeof line, stdin)) {
        answer(line);
        fflush(stdout);
    }
    return 0;
}
