//! The memory of a process that runs for years: what is not needed any more is given back.
//!
//! glibc gives large pieces of memory a mapping of their own, which goes back to the kernel when
//! they are freed, and what is large it learns: each such piece raises the bound (mallopt(3),
//! `M_MMAP_THRESHOLD`). So after one model the weights of the next lie between small things, and
//! stay: two versions, swapped twenty times, left 33 MB of 9. A bound that is set is not raised.
//! Other C libraries don't do this.
//!
//! Loading a model runs through most of the program, once; answering needs a third of it. Until
//! memory is short the kernel keeps all of it mapped.
//!
//! Knows nothing of the daemon.

#![expect(unsafe_code, reason = "these requests to the system have no safe form")]

/// From how many bytes on a piece of memory has its own mapping: less than weights, more than what
/// a request needs, which would be mapped anew each time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPING_BYTES_MIN: i32 = 1 << 20;

/// Heaps that threads share; more are more that is kept.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAPS_MAX: i32 = 2;

/// Call it before the first thread is started.
pub fn configure_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes two numbers and hands out no memory; it is called before there are threads.
    // That it may refuse them changes nothing but how much memory is kept.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPING_BYTES_MIN);
        libc::mallopt(libc::M_ARENA_MAX, HEAPS_MAX);
    }
}

/// Gives back what loading has used: free pieces of the heap; and code and constants, the program's
/// and its libraries', to the page cache. Of these, what is still needed comes back with the first
/// use, without a read as long as memory is not short.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it changes nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
    #[cfg(target_os = "linux")]
    // SAFETY: the function takes what it is called with, which is valid for the call.
    unsafe {
        libc::dl_iterate_phdr(Some(give_back_object), std::ptr::null_mut());
    }
}

/// Gives back what is mapped of the file of one object: the program, or a library.
#[cfg(target_os = "linux")]
unsafe extern "C" fn give_back_object(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: it takes a number, and gives one.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let Ok(page_bytes) = usize::try_from(page_bytes) else { return 0 };
    // SAFETY: dl_iterate_phdr(3) passes a valid object with so many headers.
    let (base, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    for header in headers {
        // Nobody has written to the others, so their pages are the file's.
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
            let Ok(start) = usize::try_from(base.wrapping_add(header.p_vaddr)) else { continue };
            let Ok(bytes) = usize::try_from(header.p_memsz) else { continue };
            let end = start.wrapping_add(bytes) & !(page_bytes - 1);
            let start = start & !(page_bytes - 1);
            // SAFETY: the pages are mapped from a file and unchanged: who reads one that was given
            // back reads the same of the file. If the kernel refuses, they stay.
            unsafe {
                libc::madvise(
                    start as *mut libc::c_void,
                    end.wrapping_sub(start),
                    libc::MADV_DONTNEED,
                );
            }
        }
    }
    0
}
