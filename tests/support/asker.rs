//! A client that asks one question again and again for as long as it lives, and writes down what became of each.
#![allow(dead_code)] // each test program uses its part
#![allow(clippy::disallowed_methods)] // it keeps time

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use crate::netns::{Namespace, wait_readable};

/// From one question to the next, of the clients of isochrone.
pub const EVERY: Duration = Duration::from_millis(10);
/// An answer that takes longer counts as lost. A machine with far too much to do delays answers by seconds, which loses none.
const LOST_AFTER: Duration = Duration::from_secs(30);

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Since the beginning.
    pub sent: Duration,
    /// When the answer came, since the beginning.
    pub answered: Option<Duration>,
    /// The data of the first record, by its place in [`Record::data`]; `None`: not answered, or without a record.
    pub said: Option<u16>,
    /// Of that record, in seconds.
    pub ttl_s: u32,
}

/// What a client has seen.
#[derive(Debug, Clone)]
pub struct Record {
    pub begun: Instant,
    /// The same moment by the clock on the wall, which logs show.
    pub begun_wall: SystemTime,
    /// From one question to the next.
    pub every: Duration,
    pub asked: Vec<Asked>,
    /// What first records held, each once: four bytes of an address, or the uncompressed name of a CNAME.
    pub data: Vec<Vec<u8>>,
}

/// The client at work.
pub struct Asker {
    record: Arc<Mutex<Record>>,
    ended: Arc<AtomicBool>,
    /// It does not even wait for the last answers.
    left: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Asker {
    /// Begins to ask `server` from inside `namespace` for the address of `name`, once in `every`.
    pub fn start(namespace: &Namespace, server: SocketAddr, name: &str, every: Duration) -> Asker {
        let socket = namespace.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.connect(server).unwrap();
        socket.set_nonblocking(true).unwrap();
        let record =
            Record { begun: Instant::now(), begun_wall: SystemTime::now(), every, asked: vec![], data: vec![] };
        let record = Arc::new(Mutex::new(record));
        let [ended, left] = [false; 2].map(|is_so| Arc::new(AtomicBool::new(is_so)));
        let (into, until, question) = (record.clone(), [ended.clone(), left.clone()], question(name));
        let thread = thread::spawn(move || ask(&socket, &into, &until, question, every));
        Asker { record, ended, left, thread: Some(thread) }
    }

    /// What the newest answer said, and when it was asked for.
    pub fn newest(&self) -> Option<(Vec<u8>, Instant)> {
        let record = self.record.lock().unwrap();
        let newest = record.asked.iter().rev().find(|asked| asked.answered.is_some())?;
        Some((record.data[usize::from(newest.said?)].clone(), record.begun + newest.sent))
    }

    /// Stops asking, waits for the last answers, and tells everything.
    pub fn stop(mut self) -> Record {
        self.end();
        let mut record = self.record.lock().unwrap();
        let empty = Record { asked: vec![], data: vec![], ..*record };
        std::mem::replace(&mut *record, empty) // an hour of questions is not held twice
    }

    /// Stops asking and waiting, and tells what there is.
    pub fn leave(self) -> Record {
        self.left.store(true, Ordering::Relaxed);
        self.stop()
    }

    fn end(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the client does not panic");
        }
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.left.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// An A question with an empty id.
fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

fn ask(
    socket: &UdpSocket,
    record: &Mutex<Record>,
    until: &[Arc<AtomicBool>; 2],
    mut question: Vec<u8>,
    every: Duration,
) {
    let [ended, left] = until;
    let begun = record.lock().unwrap().begun;
    let mut next = begun;
    let mut stop_at = None;
    // Where in the record the question with an id stands; each id is asked anew after eleven minutes.
    let mut places = vec![usize::MAX; 1 << 16];
    let mut open = 0;
    let mut reply = [0; 1500];
    loop {
        let now = Instant::now();
        if ended.load(Ordering::Relaxed) && stop_at.is_none() {
            stop_at = Some(now + LOST_AFTER);
        }
        if left.load(Ordering::Relaxed) || stop_at.is_some_and(|at| now >= at || open == 0) {
            return;
        }
        if stop_at.is_none() && now >= next {
            let mut record = record.lock().unwrap();
            let id = record.asked.len() as u16;
            question[..2].copy_from_slice(&id.to_be_bytes());
            places[usize::from(id)] = record.asked.len();
            record.asked.push(Asked { sent: now - begun, answered: None, said: None, ttl_s: 0 });
            drop(record);
            let _ = socket.send(&question); // what the kernel refuses stays unanswered
            open += 1;
            // After a time in which this thread did not run, no burst makes up for it.
            next = if now - next > every { now + every } else { next + every };
        }
        wait_readable(&[socket.as_fd()], next.max(now + Duration::from_millis(1)));
        while let Ok(len) = socket.recv(&mut reply) {
            let at = begun.elapsed();
            let Some((id, first)) = read(&reply[..len], question.len()) else { continue };
            let mut record = record.lock().unwrap();
            let record = &mut *record;
            let Some(asked) = record.asked.get_mut(places[usize::from(id)]) else { continue };
            if asked.answered.is_some() || at - asked.sent > LOST_AFTER {
                continue;
            }
            asked.answered = Some(at);
            open -= 1;
            if let Some(First { data, ttl_s }) = first {
                let place = record.data.iter().position(|known| known == data).unwrap_or_else(|| {
                    record.data.push(data.to_vec());
                    record.data.len() - 1
                });
                (asked.said, asked.ttl_s) = (Some(place as u16), ttl_s);
            }
        }
    }
}

/// The first record after the question, an address or an alias.
struct First<'r> {
    data: &'r [u8],
    ttl_s: u32,
}

/// Id of a reply, and its first record if there is one.
fn read(reply: &[u8], question_len: usize) -> Option<(u16, Option<First<'_>>)> {
    let id = u16::from_be_bytes(reply.get(..2)?.try_into().ok()?);
    let is_good = reply[2] & 0x80 != 0 && reply.get(3)? & 0x0f == 0;
    let head: Option<[u8; 12]> = reply.get(question_len..question_len + 12).and_then(|head| head.try_into().ok());
    // A pointer to the question's name, type A or CNAME, class IN, TTL, length.
    let [0xc0..=0xff, _, 0, 1 | 5, 0, 1, t0, t1, t2, t3, l0, l1] = head.filter(|_| is_good).unwrap_or_default() else {
        return Some((id, None));
    };
    let len = usize::from(u16::from_be_bytes([l0, l1]));
    let data = reply.get(question_len + 12..question_len + 12 + len)?;
    Some((id, Some(First { data, ttl_s: u32::from_be_bytes([t0, t1, t2, t3]) })))
}
