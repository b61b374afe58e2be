/* Decode the part of a JPEG that a crop needs, to the bytes that decoding all of it gives.
 *
 * libjpeg-turbo can leave out columns and rows. What lies left of, right of and above the part has still to be read bit
 * by bit, but is not transformed, upsampled and turned into RGB. The library treats the edge of a part as if it were
 * the edge of the picture, where upsampling has no neighbour to look at: so a few columns more than are wanted are
 * decoded, and thrown away.
 *
 * Only what nearly all photographs are is done here: sequential, Huffman-coded, one scan, gray or YCbCr in one of the
 * usual subsamplings, not cut, and without a single warning. For the rest the answer is that another decoder has to
 * look at it.
 */
#define PY_SSIZE_T_CLEAN
#ifndef Py_GIL_DISABLED
#define Py_LIMITED_API 0x030B0000 /* one build serves Python 3.11 and later */
#endif
#include <Python.h>

#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#if !defined(LIBJPEG_TURBO_VERSION_NUMBER) || LIBJPEG_TURBO_VERSION_NUMBER < 2001005
#error "libjpeg-turbo 2.1.5 or later is needed"
#endif

enum {
    CHANNELS = 3,
    MARGIN = 2,    /* columns beside the wanted ones: the one sample of chroma that upsampling looks at */
    BLOCK_MAX = 16, /* columns of the widest block that chroma is shared in: a part starts at a multiple of it */
    ROWS_AT_ONCE = 4,
};

typedef struct {
    uint8_t *data;
    ptrdiff_t stride;
    int left, top, columns, rows; /* the wanted part of the picture; `data` has room for SLACK columns more */
} Part;

enum { SLACK = 2 * MARGIN + BLOCK_MAX };

/* ---- The library's errors: the first one, and the first warning, end the attempt. ---- */

typedef struct {
    struct jpeg_error_mgr face;
    jmp_buf way_out;
} Errors;

static void give_up(j_common_ptr info) { longjmp(((Errors *)info->err)->way_out, 1); }

static void hear(j_common_ptr info, int level) {
    if (level < 0) {
        give_up(info);
    }
}

/* ---- Decoding. ---- */

static int is_usual(const struct jpeg_decompress_struct *info) {
    const jpeg_component_info *parts = info->comp_info;
    if (info->progressive_mode || info->arith_code || info->data_precision != 8 ||
        info->comps_in_scan != info->num_components) {
        return 0;
    }
    if (info->num_components == 1) {
        return info->jpeg_color_space == JCS_GRAYSCALE;
    }
    return info->num_components == CHANNELS && info->jpeg_color_space == JCS_YCbCr && parts[0].h_samp_factor <= 2 &&
           parts[0].v_samp_factor <= 2 && parts[1].h_samp_factor == 1 && parts[1].v_samp_factor == 1 &&
           parts[2].h_samp_factor == 1 && parts[2].v_samp_factor == 1;
}

/* Whether what was not decoded goes on to the end of the picture without a marker that does not belong there. Rows below
 * the part are not looked at; but then no decoder can fail because of them. */
static int ends_well(const struct jpeg_decompress_struct *info) {
    const uint8_t *data = info->src->next_input_byte, *const end = data + info->src->bytes_in_buffer;
    const int restarts = info->restart_interval > 0;
    int marker = info->unread_marker; /* one that was come across, or 0 */
    while (marker == 0 || (restarts && marker >= 0xD0 && marker <= 0xD7)) { /* 0 in the data: a stuffed FF */
        data = memchr(data, 0xFF, (size_t)(end - data));
        if (data == NULL || end - data < 2) {
            return 0;
        }
        marker = data[1];
        data += 2;
    }
    return marker == 0xD9;
}

/* Read `count` rows to where `to` is, one `stride` after the other. */
static void read_rows(j_decompress_ptr info, uint8_t *to, ptrdiff_t stride, int count) {
    while (count > 0) {
        JSAMPROW rows[ROWS_AT_ONCE];
        const int wanted = count < ROWS_AT_ONCE ? count : ROWS_AT_ONCE;
        for (int i = 0; i < wanted; i++) {
            rows[i] = to + i * stride;
        }
        const int done = (int)jpeg_read_scanlines(info, rows, (JDIMENSION)wanted);
        to += done * stride;
        count -= done;
    }
}

/* Fill the part; return the column of the picture at which its rows start, or -1 if this is no usual picture. */
static int fill(j_decompress_ptr info, int width, int height, const Part *part) {
    jpeg_read_header(info, TRUE);
    if (!is_usual(info) || (int)info->image_width != width || (int)info->image_height != height) {
        return -1;
    }
    info->out_color_space = JCS_RGB;
    info->dct_method = JDCT_ISLOW;
    jpeg_start_decompress(info);
    const int right = part->left + part->columns, from = part->left > MARGIN ? part->left - MARGIN : 0;
    const int to = right < width - MARGIN ? right + MARGIN : width;
    JDIMENSION first = (JDIMENSION)from, columns = (JDIMENSION)(to - from);
    jpeg_crop_scanline(info, &first, &columns);
    if ((int)columns > part->columns + SLACK || (int)first > part->left) {
        return -1;
    }
    if (part->top > 0) {
        jpeg_skip_scanlines(info, (JDIMENSION)part->top);
    }
    read_rows(info, part->data, part->stride, part->rows);
    return ends_well(info) ? (int)first : -1;
}

/* As `fill`; -1 also for errors and warnings. */
static int decode(const uint8_t *jpeg, size_t num_bytes, int width, int height, const Part *part) {
    struct jpeg_decompress_struct info = {0};
    Errors errors;
    info.err = jpeg_std_error(&errors.face);
    errors.face.error_exit = give_up;
    errors.face.emit_message = hear;
    int start = -1;
    if (!setjmp(errors.way_out)) {
        jpeg_create_decompress(&info);
        jpeg_mem_src(&info, jpeg, (unsigned long)num_bytes);
        start = fill(&info, width, height, part);
    }
    jpeg_destroy_decompress(&info);
    return start;
}

/* ---- The Python face. ---- */

static int as_part(Part *part, const Py_buffer *view, int left, int top, int width, int height) {
    const Py_ssize_t *shape = view->shape;
    if (view->itemsize != 1 || view->ndim != 3 || shape[2] != CHANNELS || view->strides[2] != 1 ||
        view->strides[1] != CHANNELS || view->strides[0] < shape[1] * CHANNELS) {
        PyErr_SetString(PyExc_ValueError, "pixels are not uint8 (height, width, 3), rows of neighbours in memory.");
        return 0;
    }
    const Py_ssize_t columns = shape[1] - SLACK;
    if (left < 0 || top < 0 || shape[0] < 1 || columns < 1 || left > width - columns || top > height - shape[0]) {
        PyErr_Format(PyExc_ValueError, "a part of %zd x %zd from (%d, %d) on is not within a picture of %d x %d.",
                     columns, shape[0], left, top, width, height);
        return 0;
    }
    *part = (Part){view->buf, view->strides[0], left, top, (int)columns, (int)shape[0]};
    return 1;
}

PyDoc_STRVAR(decode_part_doc,
"decode_part(jpeg, pixels, width, height, left, top)\n--\n\n"
"Write a part of the picture to `pixels`; the face of it is wds_real.jpeg_part.decode_part.");

static PyObject *decode_part(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *jpeg, *pixels;
    int width, height, left, top;
    if (!PyArg_ParseTuple(args, "OOiiii", &jpeg, &pixels, &width, &height, &left, &top)) {
        return NULL;
    }
    Py_buffer from, to;
    if (PyObject_GetBuffer(jpeg, &from, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    if (PyObject_GetBuffer(pixels, &to, PyBUF_STRIDES | PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&from);
        return NULL;
    }
    Part part;
    PyObject *result = NULL;
    if (as_part(&part, &to, left, top, width, height)) {
        int start;
        Py_BEGIN_ALLOW_THREADS
        start = decode(from.buf, (size_t)from.len, width, height, &part);
        Py_END_ALLOW_THREADS
        result = PyLong_FromLong(start);
    }
    PyBuffer_Release(&to);
    PyBuffer_Release(&from);
    return result;
}

static PyMethodDef methods[] = {{"decode_part", decode_part, METH_VARARGS, decode_part_doc}, {NULL, NULL, 0, NULL}};

static int add_facts(PyObject *module) {
    return PyModule_AddIntConstant(module, "SLACK", SLACK) ||
           PyModule_AddIntConstant(module, "VERSION", LIBJPEG_TURBO_VERSION_NUMBER);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)add_facts},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_jpeg", "Decoding of the part of a JPEG that is kept.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__jpeg(void) { return PyModuleDef_Init(&definition); }
