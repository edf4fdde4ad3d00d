#![allow(unsafe_code, reason="x")]
use moed::engine::kernel::{*,activations::*,matmul::*};
use std::time::Instant;
fn cpu()->f64{ #[repr(C)] struct TS{s:i64,n:i64} unsafe extern "C"{fn clock_gettime(c:i32,t:*mut TS)->i32;} let mut t=TS{s:0,n:0}; unsafe{clock_gettime(3,&mut t)}; t.s as f64*1e6+t.n as f64/1e3 }
fn main(){
  println!("{:?}", available());
  let kernel=active().unwrap(); let _=Instant::now();
  for (name,h,i,e,k) in [("s",256usize,512usize,16usize,2usize),("m",512,1024,32,2),("g",1024,512,32,8)] {
    let per=3*h*i; let mut w0:Vec<u8>=(0..per*e+4096).map(|j|(j*2654435761usize>>13) as u8).collect(); let al=w0.as_ptr().align_offset(4096); let w=&mut w0[al..];
    for (bl,block) in [("b32",Some(32usize)),("chan",None)] { let s:Vec<f32>=(0..per*e/32).map(|j|((j%97) as f32+1.)*1e-4).collect();
    for mr in [1usize,2,3,4,8,16] {
      let kk=h.max(i); let xs:Vec<f32>=(0..kk*16).map(|j|((j*7919)%255) as f32-127.).collect();
      let (mut a1,mut a2)=(Activations::default(),Activations::default());
      let prec=if block.is_some(){Precision::Int8}else{Precision::Int16};
      a1.quantise(&xs[..h*16],h,ChunkShape::of_weights(block),prec,kernel.layout()).unwrap(); a2.quantise(&xs[..i*16],i,ChunkShape::of_weights(block),prec,kernel.layout()).unwrap();
      let cols:Vec<u32>=(0..mr as u32).collect(); let mut out=vec![0f32;2*i.max(h)*64]; let mut sc=Vec::new();
      let mut ts=vec![];
      for ex in 0..200 { let c=cpu();
        for j in 0..k { let e0=(ex*7+j*3)%e; 
          for (n,kd,wo,a) in [(2*i,h,0usize,&a1),(h,i,2*i*h,&a2)] { let st=e0*per+wo; let m=Matrix::new(&w[st..st+n*kd],8,n,kd,block,if block.is_some(){&s[st/32..(st+n*kd)/32]}else{&s[..n]},None);
            matmul(kernel,&m,0..n,a,&cols,&mut out[..mr*n],&mut sc); } }
        ts.push(cpu()-c); }
      ts.sort_by(|a,b|a.total_cmp(b)); let p=ts[2]; println!("{name} {bl} rows/expert {mr}: p10 {:.1} us  {:.1} GB/s {:.1} GFLOP/s  med {:.1}",p,(per*k) as f64/p/1e3,(per*k*mr*2) as f64/p/1e3, ts[100]);
    }}
  }
}
